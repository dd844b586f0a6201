//! The handshake as states that consume each other. Each state takes the message it waits for, and returns the reply and
//! the next state, so that no step can be skipped or repeated. Nothing here touches the socket.
//!
//! ```text
//! Logon<New> ──Hello──▶ Logon<Challenged> ──Proof──▶ Logon<Proven> ──Finished──▶ Logon<Checked> ──────▶ Entered
//!      └─ client too old: UPDATE_REQUIRED                                            └─SecondFactor─┘
//! ```

use std::{net::IpAddr, sync::Arc, time::Instant};

use shardkeep_auth::{
    AccountName, ChannelBinding, Transcript,
    hybrid::{self, HybridSecret},
    login_keys::LoginKeys,
    srp::Challenge,
    ticket::TicketChain,
};
use shardkeep_daemon::{Origin, Prefix};
use shardkeep_store::accounts::Credentials;
use shardkeep_update::Patches;
use shardkeep_wire::{
    Message, opcode,
    payload::{self, Finished, Hello, Proof, SecondFactor, Verified, Welcome},
    seal::Suite,
};

use crate::{
    accounts::{authority::Authority, second_factor::SecondFactors},
    config::{Config, Hybrid},
    door::{limits::Limits, puzzle::Puzzles, queue::JobRequest},
    error::LoginError,
    logon::{
        decoys::Decoys,
        entry::{Entered, Entrance, ProvenClient, check_ban},
        lookup::{AccountDirectory, AccountLookup},
        pool::{Job, Pool},
        step_gate::StepGate,
    },
    metrics, random,
    replies::{decode, reply},
};

/// Everything that the steps of a login use.
pub(crate) struct Logons {
    min_client_version: u32,
    hybrid: Hybrid,
    patches: Patches,
    puzzles: Puzzles,
    limits: Limits,
    pool: Pool,
    step_gate: StepGate,
    directory: AccountDirectory,
    decoys: Arc<Decoys>,
    authority: Arc<Authority>,
    factors: Arc<SecondFactors>,
    entrance: Entrance,
}

/// Parts of [`Logons`] that it owns alone.
pub(crate) struct LogonParts {
    pub(crate) puzzles: Puzzles,
    pub(crate) step_gate: StepGate,
    pub(crate) directory: AccountDirectory,
    pub(crate) entrance: Entrance,
}

impl Logons {
    pub(crate) fn new(
        config: &Config,
        pool: Pool,
        patches: Patches,
        decoys: Arc<Decoys>,
        authority: Arc<Authority>,
        factors: Arc<SecondFactors>,
        parts: LogonParts,
    ) -> Self {
        let LogonParts { puzzles, step_gate, directory, entrance } = parts;
        Self {
            min_client_version: config.min_client_version,
            hybrid: config.hybrid,
            limits: Limits::new(config.limits.clone()),
            patches,
            puzzles,
            pool,
            step_gate,
            directory,
            decoys,
            authority,
            factors,
            entrance,
        }
    }

    /// Zero bits that puzzles ask for now; `None`: no puzzle is needed.
    pub(crate) fn puzzle_bits(&self) -> Option<u32> {
        self.puzzles.bits(self.pool.load())
    }
}

pub(crate) struct Logon<S> {
    address: IpAddr,
    origin: Origin,
    transcript: Transcript,
    started: Instant,
    /// When the handshake must be over.
    until: Instant,
    state: S,
}

pub(crate) struct New;

pub(crate) struct Challenged {
    challenge: Challenge,
    name: AccountName,
    suite: Suite,
    hybrid: Option<HybridSecret>,
    lookup: AccountLookup,
}

pub(crate) struct Proven {
    keys: LoginKeys,
    finished: shardkeep_auth::Mac,
    name: AccountName,
    account: Credentials,
}

/// The client knows the password; a code of a second factor may be missing.
pub(crate) struct Checked {
    chain: TicketChain,
    client: ProvenClient,
}

/// The outcome of [`Logon::enter`].
pub(crate) enum EnterOutcome {
    LoggedIn(Box<(Entered, TicketChain)>, Message),
    /// A second factor was added meanwhile.
    CodeNeeded(Box<Logon<Checked>>),
}

impl<S> Logon<S> {
    fn advance<T>(self, state: T) -> Logon<T> {
        let Self { address, origin, transcript, started, until, .. } = self;
        Logon { address, origin, transcript, started, until, state }
    }

    /// A place in the queue for one of the login's two jobs.
    fn job_request(&self, logons: &Logons, account: &AccountName, cost: u32) -> JobRequest {
        JobRequest {
            prefix: Prefix::of(self.address),
            account: account.clone(),
            trusted: logons.limits.is_trusted(self.origin, account, Instant::now()),
            cost,
            until: self.until,
        }
    }
}

impl Logon<New> {
    pub(crate) fn new(preface: &ChannelBinding, address: IpAddr, now: Instant, until: Instant) -> Self {
        Self {
            address,
            origin: Origin::of(address),
            transcript: Transcript::new(preface),
            started: now,
            until,
            state: New,
        }
    }

    /// The puzzle that this client must solve first. Checking an answer costs a few hashes.
    pub(crate) fn puzzle(&self, logons: &Logons, message: &Message) -> Result<Option<Message>, LoginError> {
        let load = logons.pool.load();
        let puzzle = logons.puzzles.evaluate(load, self.origin, &message.payload, random::unix_millis());
        let number = message.head.request().ok_or(LoginError::Malformed("not a request"))?;
        Ok(puzzle.map(|puzzle| Message::reply(opcode::PUZZLE, number, &puzzle)))
    }

    /// Answers `Hello` with a challenge, at a moment that tells nothing about the account.
    pub(crate) async fn hello(
        self,
        logons: &Logons,
        message: &Message,
    ) -> Result<(Logon<Challenged>, Message), LoginError> {
        logons.step_gate.run_until_tick(self.challenge(logons, message)).await
    }

    async fn challenge(
        mut self,
        logons: &Logons,
        message: &Message,
    ) -> Result<(Logon<Challenged>, Message), LoginError> {
        let hello: Hello = decode(message)?;
        logons.limits.begin(self.origin, Instant::now())?;
        if hello.random.len() != 32 {
            return Err(LoginError::Malformed("Hello.random is not 32 bytes"));
        }
        let oldest = logons.min_client_version;
        if hello.client_version < oldest {
            let update = logons.patches.are_published();
            return Err(LoginError::Outdated { version: hello.client_version, oldest, update });
        }
        let offer = key_share(logons.hybrid, hello.key_share)?;
        let suite = Suite::choose(&hello.suites).ok_or(LoginError::NoneSupported("suites"))?;
        let name = AccountName::normalise(&hello.account)
            .map_err(|_| LoginError::Malformed("Hello.account is not an account name"))?;
        let lookup = logons.directory.look_up(&name).await?;
        let verifier = logons.decoys.verifier(&name, lookup.proof(), lookup.is_unavailable())?;
        if !hello.groups.contains(&verifier.group().bits()) {
            return Err(LoginError::NoneSupported("groups"));
        }
        let (b, ours) = (random::key()?, random::key()?);
        let cost = Job::Challenge.cost(verifier.group()) + u32::from(offer.is_some());
        let job = logons.pool.run(self.job_request(logons, &name, cost), move |work| {
            let share = offer.map(|offer| hybrid::answer(&offer, &ours)).transpose()?;
            Ok::<_, LoginError>((verifier.challenge(&b, work)?, share))
        });
        let (challenge, share) = job.await??;
        metrics::key_share(share.is_some());
        let (key_share, hybrid) = share.unzip();

        let challenged = payload::Challenge {
            group: challenge.group().bits(),
            salt: challenge.salt().to_vec(),
            b: challenge.public().to_vec(),
            suite: payload::Suite::from(suite).into(),
            random: random::bytes::<32>()?.to_vec(),
            key_share: key_share.unwrap_or_default(),
        };
        let answer = reply(message, &challenged)?;
        self.transcript.add(&message.to_bytes());
        self.transcript.add(&answer.to_bytes());
        Ok((self.advance(Challenged { challenge, name, suite, hybrid, lookup }), answer))
    }
}

/// The client's key share, if both sides use one.
fn key_share(wanted: Hybrid, offer: Vec<u8>) -> Result<Option<Vec<u8>>, LoginError> {
    match wanted {
        Hybrid::Require if offer.is_empty() => Err(LoginError::NoneSupported("key shares")),
        Hybrid::Off => Ok(None),
        _ if offer.is_empty() => Ok(None),
        _ if offer.len() != hybrid::OFFER => Err(LoginError::Malformed("Hello.key_share has another size")),
        _ => Ok(Some(offer)),
    }
}

impl Logon<Challenged> {
    /// Checks the client's proof, and ends at a moment that tells nothing about the account. Records after the reply are
    /// sealed with the keys of the next state.
    pub(crate) async fn proof(
        self,
        logons: &Logons,
        message: &Message,
    ) -> Result<(Logon<Proven>, Message, Suite), LoginError> {
        logons.step_gate.run_until_tick(self.verify(logons, message)).await
    }

    async fn verify(
        mut self,
        logons: &Logons,
        message: &Message,
    ) -> Result<(Logon<Proven>, Message, Suite), LoginError> {
        let proof: Proof = decode(message)?;
        let charge = logons.limits.charge(self.origin, &self.state.name)?;
        self.transcript.add(&message.to_bytes());
        let th1 = self.transcript.hash();

        let cost = Job::Proof.cost(self.state.challenge.group());
        let job_request = self.job_request(logons, &self.state.name, cost);
        let Self { address, origin, mut transcript, started, until, state } = self;
        let Challenged { challenge, name, suite, hybrid, lookup } = state;
        let job = logons.pool.run(job_request, move |work| challenge.verify(&proof.a, &proof.m1, work));
        let verdict = job.await?;
        charge.settle();
        let session = verdict.inspect_err(|_| log_denied(&lookup, address))?;
        logons.limits.record_success(origin, &name, Instant::now());
        let account = match lookup {
            AccountLookup::Local(account) => *account,
            AccountLookup::Central(account) => {
                check_ban(account.id, &account.ban, address)?;
                logons.authority.activate(&name, &account, address).await?
            }
            AccountLookup::Unknown | AccountLookup::Unavailable => {
                return Err(LoginError::Internal("a proof of a stand-in was right"));
            }
        };
        check_ban(account.id, &account.ban, address)?;

        let keys = LoginKeys::derive(session.shared(), hybrid.as_ref(), &th1);
        let verified =
            Verified { m2: session.m2().to_vec(), finished: keys.server_finished(&th1).as_bytes().to_vec() };
        let answer = reply(message, &verified)?;
        transcript.add(&answer.to_bytes());
        let finished = keys.client_finished(&transcript.hash());
        let state = Proven { keys, finished, name, account };
        Ok((Logon { address, origin, transcript, started, until, state }, answer, suite))
    }
}

fn log_denied(lookup: &AccountLookup, address: IpAddr) {
    // An unknown name is not logged, because people type passwords into that field.
    let id = match lookup {
        AccountLookup::Local(account) => account.id,
        AccountLookup::Central(account) => account.id,
        AccountLookup::Unknown => {
            return shardkeep_daemon::event!("login_denied", reason = "unknown account", %address);
        }
        AccountLookup::Unavailable => {
            return shardkeep_daemon::event!(
                "login_denied",
                reason = "not active here, and the centre does not answer",
                %address
            );
        }
    };
    shardkeep_daemon::event!("login_denied", account = id.0, %address);
}

impl Logon<Proven> {
    pub(crate) fn keys(&self) -> (shardkeep_auth::Key, shardkeep_auth::Key) {
        (self.state.keys.client.clone(), self.state.keys.server.clone())
    }

    /// Checks that the client has seen the same messages.
    pub(crate) fn finished(self, message: &Message) -> Result<Logon<Checked>, LoginError> {
        let finished: Finished = decode(message)?;
        if !self.state.finished.matches(&finished.finished) {
            return Err(LoginError::Malformed("Finished does not match the messages before it"));
        }
        let Self { address, origin, transcript, started, until, state } = self;
        let Proven { keys, name, account, .. } = state;
        let state = Checked { chain: keys.chain, client: ProvenClient::new(name, address, account) };
        Ok(Logon { address, origin, transcript, started, until, state })
    }
}

impl Logon<Checked> {
    pub(crate) fn needs_code(&self) -> bool {
        self.state.client.missing_factor().is_some()
    }

    /// Checks a code of the second factor. A wrong code changes nothing.
    pub(crate) async fn code(&mut self, logons: &Logons, message: &Message) -> Result<(), LoginError> {
        let SecondFactor { code } = decode(message)?;
        let client = &mut self.state.client;
        let factor = client.missing_factor().ok_or(LoginError::Internal("no code is missing"))?.clone();
        logons.factors.verify(client.id(), &factor, &code).await?;
        client.factor_verified(factor);
        Ok(())
    }

    /// Logs the client in. The welcome is the reply to `message`.
    pub(crate) async fn enter(self, logons: &Logons, message: &Message) -> Result<EnterOutcome, LoginError> {
        let Self { address, origin, transcript, started, until, state } = self;
        let Checked { chain, client } = state;
        match logons.entrance.enter(client).await? {
            Err(client) => {
                let state = Checked { chain, client };
                let again = Logon { address, origin, transcript, started, until, state };
                Ok(EnterOutcome::CodeNeeded(Box::new(again)))
            }
            Ok(entered) => {
                metrics::welcomed(started.elapsed());
                let welcome = Welcome {
                    account_id: entered.session.id().0,
                    play_time_left_ms: entered.play_time_left_ms,
                };
                let welcome = reply(message, &welcome)?;
                Ok(EnterOutcome::LoggedIn(Box::new((entered, chain)), welcome))
            }
        }
    }
}
