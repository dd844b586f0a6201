//! Entry points for fuzzers over untrusted numbers and names. Tests replay the fuzz corpus through them. Each
//! function accepts any bytes and returns, and never accepts a proof by chance.

use shardkeep_types::Secret;

use crate::{
    AccountName, WorkCounter,
    crypto::Key,
    prepare_password,
    session::{Proof, SessionKeys},
    srp::{Credentials, Group, Parameters, Verifier},
    ticket::TicketChain,
};

/// Both sides of SRP. The first byte selects the untrusted input (a proof to the server, a challenge to the client,
/// a stored verifier), the second the group.
pub fn srp(bytes: &[u8]) {
    let [half, group, rest @ ..] = bytes else { return };
    let group = Group::ALL[usize::from(*group) % Group::ALL.len()];
    match half % 3 {
        0 => proof(group, rest),
        1 => challenge(group, rest),
        _ => stored(rest),
    }
}

fn alice() -> AccountName {
    AccountName::normalise("alice").expect("a constant name")
}

/// The server receives `M1`, prefixed by its length, and `A`.
fn proof(group: Group, bytes: &[u8]) {
    let Some((&length, rest)) = bytes.split_first() else { return };
    let (m1, a) = rest.split_at(usize::from(length).min(rest.len()));
    let mut work = WorkCounter::default();
    let verifier = Verifier::decoy(group, alice(), &Secret::new([7; 32]));
    let challenge = verifier.challenge(&Secret::new([3; 32]), &mut work).expect("a decoy makes a challenge");
    assert!(challenge.verify(a, m1, &mut work).is_err(), "nobody knows a decoy's password");
    assert!(work.exponentiations <= 3);
}

/// The client receives a salt, prefixed by its length, and `B`. Only a holder of the verifier accepts the client's
/// proof.
fn challenge(group: Group, bytes: &[u8]) {
    let Some((&length, rest)) = bytes.split_first() else { return };
    let (salt, b) = rest.split_at(usize::from(length).min(rest.len()));
    let Ok(credentials) = Credentials::new(alice(), "secret") else { return };
    let parameters = Parameters { group: group.bits(), salt, b };
    if let Ok(answer) = credentials.answer(&parameters, &Secret::new([5; 32])) {
        assert!(!answer.public().is_empty() && answer.public().len() <= group.bytes());
        assert!(answer.verify(&bytes[..32.min(bytes.len())]).is_err(), "a server was believed");
    }
}

/// A verifier from a damaged store: group, salt with its length, `v`.
fn stored(bytes: &[u8]) {
    let [low, high, length, rest @ ..] = bytes else { return };
    let group = u32::from(u16::from_le_bytes([*low, *high]));
    let (salt, v) = rest.split_at(usize::from(*length).min(rest.len()));
    let verifier = Verifier::stored(alice(), group, salt.to_vec(), Secret::new(v.to_vec()));
    if let Ok(verifier) = verifier {
        let made = verifier.challenge(&Secret::new([3; 32]), &mut WorkCounter::default());
        assert!(made.is_ok_and(|challenge| challenge.public().len() <= challenge.group().bytes()));
    }
}

/// Account names and passwords, as typed.
pub fn names(bytes: &[u8]) {
    let Ok(typed) = std::str::from_utf8(bytes) else { return };
    if let Ok(name) = AccountName::normalise(typed) {
        assert_eq!(AccountName::normalise(name.as_str()), Ok(name.clone()));
        assert!((AccountName::MIN..=AccountName::MAX).contains(&name.as_str().len()));
    }
    let _ = prepare_password(typed);
}

/// Tickets and their proofs: key, preface, random and MAC come from the bytes, followed by suites.
pub fn ticket(bytes: &[u8]) {
    let Some((key, rest)) = bytes.split_first_chunk::<32>() else { return };
    let Some((preface, rest)) = rest.split_first_chunk::<12>() else { return };
    let Some((random, rest)) = rest.split_first_chunk::<32>() else { return };
    let Some((shared, suites)) = rest.split_first_chunk::<32>() else { return };
    let (key, shared): (Key, Key) = (Secret::new(*key), Secret::new(*shared));

    let mut chain = TicketChain::new(shared.clone());
    let (first, second) = (chain.take(), chain.take());
    assert!(first.id != second.id && first.key != second.key && (first.index, second.index) == (0, 1));

    let mac = Proof::attach(&first.key).client(preface, &first.id.0, random, suites);
    assert!(mac.matches(mac.as_bytes()));
    // A MAC without the key, and a MAC under another key.
    assert!(!mac.matches(suites) && !mac.matches(shared.expose()));
    let mut others = vec![Proof::attach(&second.key), Proof::resume(&first.key)];
    // A fuzzer can observe key comparisons, so it may find the ticket's key.
    if key != first.key {
        others.push(Proof::attach(&key));
    }
    for other in others {
        assert!(!mac.matches(other.client(preface, &first.id.0, random, suites).as_bytes()));
    }
    let server = Proof::attach(&first.key).server(preface, suites, random, 1, 0);
    assert!(!mac.matches(server.as_bytes()), "a client's proof can be reflected");
    let session = SessionKeys::derive(&first.key, preface, suites, random);
    assert!(session.client != session.server && session.gateway_resume != session.world_resume);
}
