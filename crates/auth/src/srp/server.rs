//! Server side of SRP6a: challenges with the account's verifier, or with a decoy of the same cost, and checks the
//! proof.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use shardkeep_names::prepare_password;
use shardkeep_types::Secret;

use super::{
    Group, SALT_BYTES, SrpError,
    formula::{self, Exchange},
};
use crate::{
    AccountName, WorkCounter,
    bignum::{Comb, Number},
    crypto::{Key, mac},
};

/// The stored part of a password: enough to check a proof, not enough to create one.
pub struct Verifier {
    account: AccountName,
    group: Group,
    salt: Vec<u8>,
    v: Secret<Vec<u8>>,
    /// Stored powers of `v` that replace most of an exponentiation, each as long as `N`. Empty for verifiers without
    /// them.
    rows: Secret<Vec<u8>>,
    decoy: bool,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier").field("account", &self.account).finish_non_exhaustive()
    }
}

impl Verifier {
    /// Creates the verifier of a new account or password. `random` becomes the salt. Its first byte is never zero,
    /// because common libraries treat a salt as a number.
    ///
    /// # Errors
    /// The password is empty, too long, or has a forbidden character; or memory is exhausted.
    pub fn create(
        group: Group,
        account: &AccountName,
        password: &str,
        random: [u8; SALT_BYTES],
    ) -> Result<Self, SrpError> {
        let salt = with_nonzero_first_byte(random);
        let password = Secret::new(prepare_password(password)?);
        let x = formula::x(account, password.expose().as_bytes(), &salt)?;
        let v = Secret::new(formula::power_of_g(group, &x, &mut WorkCounter::default())?.to_bytes());
        let rows = Secret::new(Vec::new());
        Ok(Self { account: account.clone(), group, salt: salt.to_vec(), v, rows, decoy: false })
    }

    /// A verifier that the client computed.
    ///
    /// # Errors
    /// Fails if the numbers are no valid salt and verifier of that group.
    pub fn provided(
        account: AccountName,
        group: u32,
        salt: Vec<u8>,
        v: Secret<Vec<u8>>,
    ) -> Result<Self, SrpError> {
        let group = Group::from_bits(group).ok_or(SrpError::UnknownGroup)?;
        if salt.len() != SALT_BYTES || salt[0] == 0 {
            return Err(SrpError::Malformed("salt"));
        }
        formula::public_number(group, v.expose())?;
        Ok(Self { account, group, salt, v, rows: Secret::new(Vec::new()), decoy: false })
    }

    /// A verifier from a store, in its [stored_form](Self::stored_form) or without powers.
    ///
    /// # Errors
    /// Fails like [`Self::provided`].
    pub fn stored(
        account: AccountName,
        group: u32,
        salt: Vec<u8>,
        verifier: Secret<Vec<u8>>,
    ) -> Result<Self, SrpError> {
        let length = Group::from_bits(group).ok_or(SrpError::UnknownGroup)?.bytes();
        let stored_form = verifier.expose();
        if stored_form.len() != Comb::ROWS * length {
            return Self::provided(account, group, salt, verifier);
        }
        let zeros = stored_form.iter().take(length).take_while(|byte| **byte == 0).count();
        let (v, rows) =
            (Secret::new(stored_form[zeros..length].to_vec()), Secret::new(stored_form[length..].to_vec()));
        Ok(Self { rows, ..Self::provided(account, group, salt, v)? })
    }

    /// The verifier followed by three powers of it. With them a login costs the server a quarter less.
    ///
    /// # Errors
    /// Fails only without memory.
    pub fn stored_form(&self) -> Result<Secret<Vec<u8>>, SrpError> {
        let (n, length) = (&self.group.parameters().n, self.group.bytes());
        let v = n.reduce(&Number::from_bytes(self.v.expose())?)?;
        let mut stored_form = v.to_padded(length)?;
        for row in Comb::rows(n, &v)? {
            stored_form.extend(row.to_padded(length)?);
        }
        Ok(Secret::new(stored_form))
    }

    /// A decoy for an account that does not exist. The same name and group always get the same salt, the work equals
    /// that of a real verifier, and every proof is refused. `seed` is a secret of the deployment.
    pub fn decoy(group: Group, account: AccountName, seed: &Key) -> Self {
        let bits = group.bits().to_le_bytes();
        let keyed =
            |purpose: &[u8]| mac(seed, &[b"shardkeep v1 decoy", &bits, purpose, account.as_str().as_bytes()]);
        let mut salt = [0; SALT_BYTES];
        salt.copy_from_slice(&keyed(b"salt").as_bytes()[..SALT_BYTES]);
        let salt = with_nonzero_first_byte(salt).to_vec();
        let blocks = (0..Comb::ROWS * group.bytes() / 32).map(|block| keyed(&[b'v', block as u8]));
        let mut v: Vec<u8> = blocks.flat_map(|block| *block.as_bytes()).collect();
        for number in v.chunks_exact_mut(group.bytes()) {
            // The first byte of every N is above 0x7f, so clearing the top bit yields a reduced number.
            number[0] = number[0] & 0x7f | 1;
        }
        let rows = Secret::new(v.split_off(group.bytes()));
        Self { account, group, salt, v: Secret::new(v), rows, decoy: true }
    }

    /// A stable bucket of the name, from 256, that selects the group of its decoy.
    pub fn decoy_bucket(account: &AccountName, seed: &Key) -> u8 {
        mac(seed, &[b"shardkeep v1 decoy group", account.as_str().as_bytes()]).as_bytes()[0]
    }

    pub fn group(&self) -> Group {
        self.group
    }

    pub fn salt(&self) -> &[u8] {
        &self.salt
    }

    /// The verifier itself, without powers.
    pub fn verifier(&self) -> &Secret<Vec<u8>> {
        &self.v
    }

    /// Creates the challenge with one exponentiation. `secret` is `b`: 32 bytes of fresh randomness.
    ///
    /// # Errors
    /// Fails only without memory, or if `B` would be 0, which has a negligible probability.
    pub fn challenge(self, secret: &Key, work: &mut WorkCounter) -> Result<Challenge, SrpError> {
        let n = &self.group.parameters().n;
        let b = Number::from_bytes(secret.expose())?;
        let v = n.reduce(&Number::from_bytes(self.v.expose())?)?;
        let kv = n.multiply(&formula::k(self.group)?, &v)?;
        let public = n.add(&kv, &formula::power_of_g(self.group, &b, work)?)?.to_bytes();
        formula::public_number(self.group, &public)?;
        Ok(Challenge { verifier: self, v, b, public })
    }
}

fn with_nonzero_first_byte(mut salt: [u8; SALT_BYTES]) -> [u8; SALT_BYTES] {
    salt[0] = salt[0].max(1);
    salt
}

/// A sent challenge. Waits for the proof.
pub struct Challenge {
    verifier: Verifier,
    v: Number,
    b: Number,
    public: Vec<u8>,
}

impl std::fmt::Debug for Challenge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Challenge").field("account", &self.verifier.account).finish_non_exhaustive()
    }
}

impl Challenge {
    pub fn group(&self) -> Group {
        self.verifier.group
    }

    pub fn salt(&self) -> &[u8] {
        &self.verifier.salt
    }

    /// `B`, as sent.
    pub fn public(&self) -> &[u8] {
        &self.public
    }

    /// Checks the proof with two exponentiations, whatever the result, unless the numbers are out of bounds.
    ///
    /// # Errors
    /// `Malformed` or `Degenerate` numbers, or `Denied`.
    pub fn verify(self, a: &[u8], m1: &[u8], work: &mut WorkCounter) -> Result<Session, SrpError> {
        let Verifier { account, group, salt, decoy, .. } = &self.verifier;
        let m1: &[u8; 32] = m1.try_into().map_err(|_| SrpError::Malformed("M1"))?;
        let public_a = formula::public_number(*group, a)?;
        let n = &group.parameters().n;
        let u = formula::u(*group, a, &self.public)?;
        let base = n.multiply(&public_a, &self.power_of_v(&u, work)?)?;
        let shared = formula::shared(&n.power(&base, &self.b, work)?);

        let exchange = Exchange { group: *group, account, salt, a, b: &self.public };
        let right = verify_slices_are_equal(&exchange.m1(&shared), m1).is_ok();
        if !right || *decoy {
            return Err(SrpError::Denied);
        }
        Ok(Session { m2: formula::m2(a, m1, &shared), shared })
    }

    /// `v ^ u`. `u` is derived from public values and is no secret.
    fn power_of_v(&self, u: &Number, work: &mut WorkCounter) -> Result<Number, SrpError> {
        let Verifier { group, rows, .. } = &self.verifier;
        let n = &group.parameters().n;
        if !rows.expose().is_empty() {
            let rows = rows.expose().chunks_exact(group.bytes());
            let rows = rows.map(|row| n.reduce(&Number::from_bytes(row)?)).collect::<Result<Vec<_>, _>>()?;
            if let Some(power) = Comb::new(n, &self.v, &rows)?.power(n, u)? {
                work.exponentiations += 1;
                return Ok(power);
            }
        }
        Ok(n.power(&self.v, u, work)?)
    }
}

/// A completed login with the correct password.
#[derive(Debug)]
pub struct Session {
    m2: [u8; 32],
    shared: Key,
}

impl Session {
    pub fn m2(&self) -> &[u8; 32] {
        &self.m2
    }

    /// `K`.
    pub fn shared(&self) -> &Key {
        &self.shared
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::srp::{Answer, Credentials, Parameters};

    fn alice() -> AccountName {
        AccountName::normalise("alice").unwrap()
    }

    fn known(group: Group) -> Verifier {
        Verifier::create(group, &alice(), "right", [7; 16]).unwrap()
    }

    fn seed() -> Key {
        Secret::new([5; 32])
    }

    fn challenge(verifier: Verifier, work: &mut WorkCounter) -> Challenge {
        verifier.challenge(&Secret::new([2; 32]), work).unwrap()
    }

    fn answer(challenge: &Challenge, password: &str) -> Answer {
        let parameters =
            Parameters { group: challenge.group().bits(), salt: challenge.salt(), b: challenge.public() };
        let credentials = Credentials::new(alice(), password).unwrap();
        credentials.answer(&parameters, &Secret::new([3; 32])).unwrap()
    }

    /// Result of a login, and its cost for the server.
    fn login(verifier: Verifier, password: &str) -> (Result<(), SrpError>, WorkCounter) {
        let mut work = WorkCounter::default();
        let challenge = challenge(verifier, &mut work);
        let answer = answer(&challenge, password);
        let end = challenge.verify(answer.public(), answer.m1(), &mut work);
        (end.map(|session| drop(answer.verify(session.m2()).unwrap())), work)
    }

    fn as_stored(verifier: &Verifier) -> Verifier {
        let (group, salt) = (verifier.group().bits(), verifier.salt().to_vec());
        Verifier::stored(alice(), group, salt, verifier.stored_form().unwrap()).unwrap()
    }

    #[test]
    fn login_succeeds_in_every_group() {
        for group in Group::ALL {
            assert_eq!(login(known(group), "right").0, Ok(()), "{group:?}");
            assert_eq!(login(as_stored(&known(group)), "right").0, Ok(()), "{group:?}, kept");
        }
    }

    #[test]
    fn decomposed_password_matches_verifier_of_composed_one() {
        let verifier = Verifier::create(Group::Bits2048, &alice(), "caf\u{e9}", [7; 16]).unwrap();
        assert_eq!(login(verifier, "cafe\u{301}").0, Ok(()));
    }

    #[test]
    fn stored_verifier_round_trips() {
        let stored_form = as_stored(&known(Group::Bits2048));
        assert_eq!(stored_form.verifier(), known(Group::Bits2048).verifier());
        assert_eq!(stored_form.stored_form().unwrap(), known(Group::Bits2048).stored_form().unwrap());
        assert_eq!(login(stored_form, "wrong"), (Err(SrpError::Denied), WorkCounter { exponentiations: 3 }));
        // A verifier with a leading zero byte: N has 2048 bits, 2 only two.
        let short = Verifier::stored(alice(), 2048, vec![1; 16], Secret::new(vec![2])).unwrap();
        assert_eq!(as_stored(&short).verifier().expose(), &[2]);
        let mut nothing = short.stored_form().unwrap().expose().clone();
        nothing[..256].fill(0);
        let stored = Verifier::stored(alice(), 2048, vec![1; 16], Secret::new(nothing)).map(|_| ());
        assert_eq!(stored.unwrap_err(), SrpError::Malformed("public number"));
    }

    #[test]
    fn wrong_password_and_unknown_account_cost_the_same() {
        let wrong = login(known(Group::Bits2048), "wrong");
        let unknown = login(Verifier::decoy(Group::Bits2048, alice(), &seed()), "wrong");
        assert_eq!(wrong, unknown);
        assert_eq!(wrong, (Err(SrpError::Denied), WorkCounter { exponentiations: 3 }));
    }

    #[test]
    fn decoy_is_stable_per_name_and_resembles_account() {
        let decoy = |name: &str, seed: &Key| {
            Verifier::decoy(Group::Bits2048, AccountName::normalise(name).unwrap(), seed)
        };
        let alice = decoy("alice", &seed());
        assert_eq!(alice.salt(), decoy("ALICE ", &seed()).salt());
        assert_eq!(alice.verifier(), decoy("alice", &seed()).verifier());
        assert_ne!(alice.salt(), decoy("bob", &seed()).salt());
        assert_ne!(alice.salt(), decoy("alice", &Secret::new([6; 32])).salt());
        assert_eq!(alice.salt().len(), SALT_BYTES);
        assert_ne!(alice.salt()[0], 0);
    }

    #[test]
    fn public_number_out_of_bounds_is_refused_before_work() {
        let n = &Group::Bits2048.parameters().n_bytes;
        let too_long = vec![1; 257];
        let cases: [(&[u8], SrpError); 5] = [
            (&[], SrpError::Malformed("public number")),
            (&[0], SrpError::Malformed("public number")),
            (&[0, 1], SrpError::Malformed("public number")),
            (&too_long, SrpError::Malformed("public number")),
            (n, SrpError::Degenerate),
        ];
        for (a, error) in cases {
            let challenge = challenge(known(Group::Bits2048), &mut WorkCounter::default());
            let mut work = WorkCounter::default();
            assert_eq!(challenge.verify(a, &[0; 32], &mut work).unwrap_err(), error);
            assert_eq!(work.exponentiations, 0);
        }
        let challenge = challenge(known(Group::Bits2048), &mut WorkCounter::default());
        assert_eq!(
            challenge.verify(&[2], &[0; 31], &mut WorkCounter::default()).unwrap_err(),
            SrpError::Malformed("M1")
        );
    }

    #[test]
    fn stored_verifier_is_validated() {
        let stored = |group, salt: &[u8], v: &[u8]| {
            Verifier::stored(alice(), group, salt.to_vec(), Secret::new(v.to_vec())).map(|_| ()).unwrap_err()
        };
        assert_eq!(stored(1024, &[1; 16], &[1]), SrpError::UnknownGroup);
        assert_eq!(stored(2048, &[1; 15], &[1]), SrpError::Malformed("salt"));
        assert_eq!(stored(2048, &[0; 16], &[1]), SrpError::Malformed("salt"));
        assert_eq!(stored(2048, &[1; 16], &[1; 257]), SrpError::Malformed("public number"));
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
        #[test]
        fn arbitrary_proof_is_refused(
            a in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300),
            m1 in proptest::collection::vec(proptest::prelude::any::<u8>(), 31..34),
        ) {
            let challenge = challenge(known(Group::Bits2048), &mut WorkCounter::default());
            let end = challenge.verify(&a, &m1, &mut WorkCounter::default());
            proptest::prop_assert!(matches!(end, Err(SrpError::Malformed(_) | SrpError::Denied)));
        }
    }

    #[test]
    fn client_refuses_degenerate_server_number() {
        let credentials = Credentials::new(alice(), "right").unwrap();
        let n = &Group::Bits2048.parameters().n_bytes;
        let answer = |group, b| {
            credentials
                .answer(&Parameters { group, salt: &[1; 16], b }, &Secret::new([3; 32]))
                .map(|_| ())
                .unwrap_err()
        };
        assert_eq!(answer(2048, n), SrpError::Degenerate);
        assert_eq!(answer(2048, &[]), SrpError::Malformed("public number"));
        assert_eq!(answer(512, &[1]), SrpError::UnknownGroup);
    }

    #[test]
    fn debug_shows_only_the_account() {
        let text = format!("{:?}", known(Group::Bits2048));
        assert_eq!(text, r#"Verifier { account: AccountName("alice"), .. }"#);
        let text = format!("{:?}", challenge(known(Group::Bits2048), &mut WorkCounter::default()));
        assert_eq!(text, r#"Challenge { account: AccountName("alice"), .. }"#);
    }
}
