//! The handshake as states that consume each other: each takes the message it waits for and gives the answer and the
//! next state, so no step can be skipped or taken twice. Nothing here touches the socket.
//!
//! ```text
//! Logon<New> ──Hello──▶ Logon<Challenged> ──Proof──▶ Logon<Proven> ──Finished──▶ Logon<Checked> ──────▶ WorldSelect
//!      └─ client too old: UPDATE_REQUIRED                                            └─SecondFactor─┘
//! ```

use std::{net::IpAddr, time::Instant};

use shardkeep_auth::{
    AccountName, Binding, Transcript,
    hybrid::{self, HybridSecret},
    login_keys::LoginKeys,
    srp::Challenge,
    ticket::Chain,
};
use shardkeep_daemon::{Origin, Prefix};
use shardkeep_store::accounts::{Ban, Credentials, Raised};
use shardkeep_types::{AccountId, Secret};
use shardkeep_wire::{
    Message, opcode,
    payload::{self, Finished, Hello, Proof, SecondFactor, Verified, Welcome},
    seal::Suite,
};

use crate::{
    Hybrid, LoginError, authority,
    central::look_up::{Bearer, look_up},
    door::Door,
    limits::Limits,
    metrics,
    pool::Job,
    presence,
    queue::Ask,
    random, second_factor,
    select::{Visitor, WorldSelect},
    worlds::Viewer,
};

/// Logins of one account at the same time that may get in each other's way.
const RACES: u32 = 8;

pub(crate) struct Logon<S> {
    address: IpAddr,
    origin: Origin,
    transcript: Transcript,
    begun: Instant,
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
    bearer: Bearer,
}

pub(crate) struct Proven {
    keys: LoginKeys,
    finished: shardkeep_auth::Mac,
    name: AccountName,
    account: Credentials,
}

/// The client is who it says, or needs one more proof.
pub(crate) struct Checked {
    chain: Chain,
    name: AccountName,
    account: Credentials,
    /// The second factor of which a code was right.
    verified: Option<Secret<Vec<u8>>>,
}

impl Checked {
    /// The second factor of which a code is still to be given.
    fn missing(&self) -> Option<&Secret<Vec<u8>>> {
        self.account.second_factor.as_ref().filter(|factor| self.verified.as_ref() != Some(factor))
    }
}

/// What becomes of a client that is who it says.
pub(crate) enum Entered {
    In(Box<WorldSelect>, Message),
    /// A second factor has come into force meanwhile.
    CodeNeeded(Box<Logon<Checked>>),
}

impl<S> Logon<S> {
    fn then<T>(self, state: T) -> Logon<T> {
        Logon {
            address: self.address,
            origin: self.origin,
            transcript: self.transcript,
            begun: self.begun,
            until: self.until,
            state,
        }
    }

    /// A place in the queue for one of the login's two jobs.
    fn ask(&self, door: &Door, account: &AccountName, cost: u32) -> Ask {
        Ask {
            prefix: Prefix::of(self.address),
            account: account.clone(),
            trusted: door.limits.is_trusted(self.origin, account, Instant::now()),
            cost,
            until: self.until,
        }
    }
}

impl Logon<New> {
    pub(crate) fn new(preface: &Binding, address: IpAddr, now: Instant, until: Instant) -> Self {
        Self {
            address,
            origin: Origin::of(address),
            transcript: Transcript::new(preface),
            begun: now,
            until,
            state: New,
        }
    }

    /// The puzzle that this client must solve first; before anything costs us more than a few hashes.
    pub(crate) fn puzzle(&self, door: &Door, message: &Message) -> Result<Option<Message>, LoginError> {
        let load = door.pool.load();
        let puzzle = door.puzzles.judge(load, self.origin, &message.payload, random::unix_millis());
        let number = message.head.request().ok_or(LoginError::Malformed("not a request"))?;
        Ok(puzzle.map(|puzzle| Message::reply(opcode::PUZZLE, number, &puzzle)))
    }

    pub(crate) async fn hello(
        mut self,
        door: &Door,
        message: &Message,
    ) -> Result<(Logon<Challenged>, Message), LoginError> {
        let hello: Hello = decode(message)?;
        door.limits.begin(self.origin, Instant::now())?;
        if hello.random.len() != 32 {
            return Err(LoginError::Malformed("Hello.random is not 32 bytes"));
        }
        let oldest = door.config.min_client_version;
        if hello.client_version < oldest {
            let update = door.patches.are_published();
            return Err(LoginError::Outdated { version: hello.client_version, oldest, update });
        }
        let offer = key_share(door.config.hybrid, hello.key_share)?;
        let suite = Suite::choose(&hello.suites).ok_or(LoginError::NothingInCommon("suites"))?;
        let name = AccountName::normalise(&hello.account)
            .map_err(|_| LoginError::Malformed("that is no account name"))?;
        let bearer = look_up(door, &name).await?;
        let verifier = door.verifier(&name, &bearer)?;
        if !hello.groups.contains(&verifier.group().bits()) {
            return Err(LoginError::NothingInCommon("groups"));
        }
        let (b, ours) = (random::key()?, Secret::new(random::bytes::<64>()?));
        let cost = Job::Challenge.cost(verifier.group()) + u32::from(offer.is_some());
        let job = door.pool.run(self.ask(door, &name, cost), move |work| {
            let share = offer.map(|offer| hybrid::answer(&offer, &ours)).transpose()?;
            Ok::<_, LoginError>((verifier.challenge(&b, work)?, share))
        });
        let (challenge, share) = job.await??;
        metrics::key_share(share.is_some());
        let (key_share, hybrid) = share.unzip();

        let reply = payload::Challenge {
            group: challenge.group().bits(),
            salt: challenge.salt().to_vec(),
            b: challenge.public().to_vec(),
            suite: payload::Suite::from(suite).into(),
            random: random::bytes::<32>()?.to_vec(),
            key_share: key_share.unwrap_or_default(),
        };
        let reply = answer(message, &reply)?;
        self.transcript.add(&message.to_bytes());
        self.transcript.add(&reply.to_bytes());
        Ok((self.then(Challenged { challenge, name, suite, hybrid, bearer }), reply))
    }
}

/// The client's key share, where both sides want one.
fn key_share(wanted: Hybrid, offer: Vec<u8>) -> Result<Option<Vec<u8>>, LoginError> {
    match wanted {
        Hybrid::Require if offer.is_empty() => Err(LoginError::NothingInCommon("key shares")),
        Hybrid::Off => Ok(None),
        _ if offer.is_empty() => Ok(None),
        _ if offer.len() != hybrid::OFFER => Err(LoginError::Malformed("that is no key share")),
        _ => Ok(Some(offer)),
    }
}

impl Logon<Challenged> {
    /// The keys of the connection come with the next state: what follows the reply is sealed.
    pub(crate) async fn proof(
        mut self,
        door: &Door,
        message: &Message,
    ) -> Result<(Logon<Proven>, Message, Suite), LoginError> {
        let proof: Proof = decode(message)?;
        let charge = Charge::new(&door.limits, self.origin, self.state.name.clone())?;
        self.transcript.add(&message.to_bytes());
        let th1 = self.transcript.hash();

        let cost = Job::Proof.cost(self.state.challenge.group());
        let ask = self.ask(door, &self.state.name, cost);
        let Challenged { challenge, name, suite, hybrid, bearer } = self.state;
        let job = door.pool.run(ask, move |work| challenge.verify(&proof.a, &proof.m1, work));
        let looked_at = job.await?;
        charge.judged();
        let session = looked_at.inspect_err(|_| denied(&bearer, self.address))?;
        door.limits.proved(self.origin, &name, Instant::now());
        let account = match bearer {
            Bearer::Here(account) => *account,
            Bearer::Centre(account) => {
                check_ban(account.id, &account.ban, self.address)?;
                authority::activate(door, &name, &account, self.address).await?
            }
            Bearer::Nobody | Bearer::Unsaid => return Err(LoginError::Internal("a decoy was proven")),
        };
        check_ban(account.id, &account.ban, self.address)?;

        let keys = LoginKeys::derive(session.shared(), hybrid.as_ref(), &th1);
        let reply =
            Verified { m2: session.m2().to_vec(), finished: keys.server_finished(&th1).as_bytes().to_vec() };
        let reply = answer(message, &reply)?;
        self.transcript.add(&reply.to_bytes());
        let finished = keys.client_finished(&self.transcript.hash());
        let Self { address, origin, transcript, begun, until, .. } = self;
        let state = Proven { keys, finished, name, account };
        Ok((Logon { address, origin, transcript, begun, until, state }, reply, suite))
    }
}

/// A proof counts as wrong from the moment it comes, and costs nothing if it is never looked at: because the pool
/// refuses it, or because its client goes away while it waits.
struct Charge<'a> {
    limits: &'a Limits,
    origin: Origin,
    account: AccountName,
    judged: bool,
}

impl<'a> Charge<'a> {
    fn new(limits: &'a Limits, origin: Origin, account: AccountName) -> Result<Self, LoginError> {
        limits.charge(origin, &account, Instant::now())?;
        Ok(Self { limits, origin, account, judged: false })
    }

    fn judged(mut self) {
        self.judged = true;
    }
}

impl Drop for Charge<'_> {
    fn drop(&mut self) {
        if !self.judged {
            self.limits.spare(self.origin, &self.account, Instant::now());
        }
    }
}

fn denied(bearer: &Bearer, address: IpAddr) {
    // The name of an account that does not exist is not logged: people type passwords into that field.
    let id = match bearer {
        Bearer::Here(account) => account.id,
        Bearer::Centre(account) => account.id,
        Bearer::Nobody => {
            return shardkeep_daemon::event!("login_denied", reason = "unknown account", %address);
        }
        Bearer::Unsaid => {
            return shardkeep_daemon::event!(
                "login_denied",
                reason = "not active here, and the centre does not answer",
                %address
            );
        }
    };
    shardkeep_daemon::event!("login_denied", account = id.0, %address);
}

fn check_ban(account: AccountId, ban: &Ban, address: IpAddr) -> Result<(), LoginError> {
    if ban.until_ms <= random::unix_millis() {
        return Ok(());
    }
    shardkeep_daemon::event!("login_banned", account = account.0, until_ms = ban.until_ms, %address);
    Err(LoginError::Banned { until_ms: ban.until_ms, reason: ban.reason.clone() })
}

impl Logon<Proven> {
    pub(crate) fn keys(&self) -> (shardkeep_auth::Key, shardkeep_auth::Key) {
        (self.state.keys.client.clone(), self.state.keys.server.clone())
    }

    /// The client has seen the same conversation.
    pub(crate) fn finished(self, message: &Message) -> Result<Logon<Checked>, LoginError> {
        let finished: Finished = decode(message)?;
        if !self.state.finished.matches(&finished.finished) {
            return Err(LoginError::Malformed("Finished does not match what was said before"));
        }
        let Self { address, origin, transcript, begun, until, state } = self;
        let Proven { keys, name, account, .. } = state;
        let state = Checked { chain: keys.chain, name, account, verified: None };
        Ok(Logon { address, origin, transcript, begun, until, state })
    }
}

impl Logon<Checked> {
    pub(crate) fn needs_code(&self) -> bool {
        self.state.missing().is_some()
    }

    /// Looks at a code; wrong ones leave everything as it is.
    pub(crate) async fn code(&mut self, door: &Door, message: &Message) -> Result<(), LoginError> {
        let SecondFactor { code } = decode(message)?;
        let factor = self.state.missing().ok_or(LoginError::Internal("no code is missing"))?.clone();
        second_factor::verify(door, self.state.account.id, &factor, &code).await?;
        self.state.verified = Some(factor);
        Ok(())
    }

    /// Raises the account's generation: from here on this login is the account's, and every other one is displaced.
    /// The welcome answers `message`. What else it says is asked for meanwhile.
    pub(crate) async fn enter(mut self, door: &Door, message: &Message) -> Result<Entered, LoginError> {
        let (address, id) = (self.address, self.state.account.id);
        // Before the generation is raised, so that nothing falls between.
        let floor = door.revocations.here.watch(id);
        let raised = raise(door, &mut self.state, address);
        let known = async { tokio::join!(door.known.play_time_left(id), door.known.characters(id)) };
        let (entered, (play_time_left_ms, characters)) = tokio::join!(raised, known);
        let Some(entered) = entered? else { return Ok(Entered::CodeNeeded(Box::new(self))) };
        let Checked { chain, name, account, .. } = self.state;
        let lease = door.hold_lease(entered);
        let generation = entered.generation;
        let welcome = Welcome { account_id: id.0, play_time_left_ms };
        metrics::welcomed(self.begun.elapsed());
        shardkeep_daemon::event!("login", account = id.0, name = name.as_str(), generation = generation.0, %address);
        let viewer = Viewer { staff: account.staff, characters: characters.unwrap_or_default() };
        let visitor = Visitor { account: entered, name, address, floor, viewer };
        let select = WorldSelect::new(visitor, chain, lease);
        Ok(Entered::In(Box::new(select), answer(message, &welcome)?))
    }
}

/// Compare-and-set: if another login, a ban, a new password or a second factor came between, look again. `None`: a code
/// is needed for that.
async fn raise(door: &Door, state: &mut Checked, address: IpAddr) -> Result<Option<Raised>, LoginError> {
    let leases = door.lease().is_some();
    for _ in 0..RACES {
        if state.missing().is_some() {
            return Ok(None);
        }
        let account = &state.account;
        let present = Raised { id: account.id, generation: account.generation };
        if leases && let Some(wait) = presence::occupied(door, present).await? {
            shardkeep_daemon::event!("login_refused", account = account.id.0, reason = "logged in already", %address);
            return Err(LoginError::AlreadyLoggedIn { wait });
        }
        if let Some(entered) = door.gathered.log_in(present).await? {
            return Ok(Some(entered));
        }
        let now = door.gathered.credentials(state.name.as_str()).await?.ok_or(LoginError::Denied)?;
        if now.proof != account.proof {
            return Err(LoginError::Denied);
        }
        check_ban(now.id, &now.ban, address)?;
        state.account = now;
    }
    Err(LoginError::Busy("logins of this account"))
}

pub(crate) fn decode<P: Default + prost::Message>(message: &Message) -> Result<P, LoginError> {
    Ok(message.decode().map_err(shardkeep_wire::WireError::from)?)
}

/// The reply to a request, with its opcode and number.
pub(crate) fn answer(request: &Message, payload: &impl prost::Message) -> Result<Message, LoginError> {
    let number = request.head.request().ok_or(LoginError::Malformed("not a request"))?;
    debug_assert!((opcode::HELLO..=opcode::REGISTER).contains(&request.opcode));
    Ok(Message::reply(request.opcode, number, payload))
}
