//! The handshake as states that consume each other: each takes the message it waits for and gives the answer and the
//! next state, so no step can be skipped or taken twice. Nothing here touches the socket.
//!
//! ```text
//! Logon<New> ──Hello──▶ Logon<Challenged> ──Proof──▶ Logon<Proven> ──Finished──▶ Logon<Checked> ──────▶ WorldSelect
//!      └─ client too old: UPDATE_REQUIRED                                            └─SecondFactor─┘
//! ```

use std::{net::IpAddr, time::Instant};

use shardkeep_auth::{
    AccountName, ChannelBinding, Transcript,
    hybrid::{self, HybridSecret},
    login_keys::LoginKeys,
    srp::Challenge,
    ticket::TicketChain,
};
use shardkeep_daemon::{Origin, Prefix};
use shardkeep_store::accounts::{AccountGeneration, Ban, Credentials};
use shardkeep_types::{AccountId, Secret};
use shardkeep_wire::{
    Message, opcode,
    payload::{self, Finished, Hello, Proof, SecondFactor, Verified, Welcome},
    seal::Suite,
};

use crate::{
    Hybrid, LoginError, authority,
    central::look_up::{AccountLookup, look_up},
    context::LoginContext,
    limits::Limits,
    metrics,
    pool::Job,
    presence,
    queue::JobRequest,
    random, second_factor,
    select::{AuthenticatedClient, WorldSelect},
    worlds::Viewer,
};

/// Logins of one account at the same time that may get in each other's way.
const MAX_RACES: u32 = 8;

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

/// The client is who it says, or needs one more proof.
pub(crate) struct Checked {
    chain: TicketChain,
    name: AccountName,
    account: Credentials,
    /// The second factor of which a code was right.
    verified: Option<Secret<Vec<u8>>>,
}

impl Checked {
    /// The second factor of which a code is still to be given.
    fn missing_factor(&self) -> Option<&Secret<Vec<u8>>> {
        self.account.second_factor.as_ref().filter(|factor| self.verified.as_ref() != Some(factor))
    }
}

/// What becomes of a client that is who it says.
pub(crate) enum EnterOutcome {
    LoggedIn(Box<WorldSelect>, Message),
    /// A second factor has come into force meanwhile.
    CodeNeeded(Box<Logon<Checked>>),
}

impl<S> Logon<S> {
    fn advance<T>(self, state: T) -> Logon<T> {
        Logon {
            address: self.address,
            origin: self.origin,
            transcript: self.transcript,
            started: self.started,
            until: self.until,
            state,
        }
    }

    /// A place in the queue for one of the login's two jobs.
    fn job_request(&self, context: &LoginContext, account: &AccountName, cost: u32) -> JobRequest {
        JobRequest {
            prefix: Prefix::of(self.address),
            account: account.clone(),
            trusted: context.limits.is_trusted(self.origin, account, Instant::now()),
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

    /// The puzzle that this client must solve first; before anything costs us more than a few hashes.
    pub(crate) fn puzzle(
        &self,
        context: &LoginContext,
        message: &Message,
    ) -> Result<Option<Message>, LoginError> {
        let load = context.pool.load();
        let puzzle = context.puzzles.evaluate(load, self.origin, &message.payload, random::unix_millis());
        let number = message.head.request().ok_or(LoginError::Malformed("not a request"))?;
        Ok(puzzle.map(|puzzle| Message::reply(opcode::PUZZLE, number, &puzzle)))
    }

    pub(crate) async fn hello(
        mut self,
        context: &LoginContext,
        message: &Message,
    ) -> Result<(Logon<Challenged>, Message), LoginError> {
        let hello: Hello = decode(message)?;
        context.limits.begin(self.origin, Instant::now())?;
        if hello.random.len() != 32 {
            return Err(LoginError::Malformed("Hello.random is not 32 bytes"));
        }
        let oldest = context.config.min_client_version;
        if hello.client_version < oldest {
            let update = context.patches.are_published();
            return Err(LoginError::Outdated { version: hello.client_version, oldest, update });
        }
        let offer = key_share(context.config.hybrid, hello.key_share)?;
        let suite = Suite::choose(&hello.suites).ok_or(LoginError::NoneSupported("suites"))?;
        let name = AccountName::normalise(&hello.account)
            .map_err(|_| LoginError::Malformed("that is no account name"))?;
        let lookup = look_up(context, &name).await?;
        let verifier = context.verifier(&name, &lookup)?;
        if !hello.groups.contains(&verifier.group().bits()) {
            return Err(LoginError::NoneSupported("groups"));
        }
        let (b, ours) = (random::key()?, Secret::new(random::bytes::<64>()?));
        let cost = Job::Challenge.cost(verifier.group()) + u32::from(offer.is_some());
        let job = context.pool.run(self.job_request(context, &name, cost), move |work| {
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
        Ok((self.advance(Challenged { challenge, name, suite, hybrid, lookup }), reply))
    }
}

/// The client's key share, where both sides want one.
fn key_share(wanted: Hybrid, offer: Vec<u8>) -> Result<Option<Vec<u8>>, LoginError> {
    match wanted {
        Hybrid::Require if offer.is_empty() => Err(LoginError::NoneSupported("key shares")),
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
        context: &LoginContext,
        message: &Message,
    ) -> Result<(Logon<Proven>, Message, Suite), LoginError> {
        let proof: Proof = decode(message)?;
        let charge = Charge::new(&context.limits, self.origin, self.state.name.clone())?;
        self.transcript.add(&message.to_bytes());
        let th1 = self.transcript.hash();

        let cost = Job::Proof.cost(self.state.challenge.group());
        let job_request = self.job_request(context, &self.state.name, cost);
        let Challenged { challenge, name, suite, hybrid, lookup } = self.state;
        let job = context.pool.run(job_request, move |work| challenge.verify(&proof.a, &proof.m1, work));
        let verdict = job.await?;
        charge.settled();
        let session = verdict.inspect_err(|_| log_denied(&lookup, self.address))?;
        context.limits.record_success(self.origin, &name, Instant::now());
        let account = match lookup {
            AccountLookup::Local(account) => *account,
            AccountLookup::Central(account) => {
                check_ban(account.id, &account.ban, self.address)?;
                authority::activate(context, &name, &account, self.address).await?
            }
            AccountLookup::Unknown | AccountLookup::Unavailable => {
                return Err(LoginError::Internal("a decoy was proven"));
            }
        };
        check_ban(account.id, &account.ban, self.address)?;

        let keys = LoginKeys::derive(session.shared(), hybrid.as_ref(), &th1);
        let reply =
            Verified { m2: session.m2().to_vec(), finished: keys.server_finished(&th1).as_bytes().to_vec() };
        let reply = answer(message, &reply)?;
        self.transcript.add(&reply.to_bytes());
        let finished = keys.client_finished(&self.transcript.hash());
        let Self { address, origin, transcript, started, until, .. } = self;
        let state = Proven { keys, finished, name, account };
        Ok((Logon { address, origin, transcript, started, until, state }, reply, suite))
    }
}

/// A proof counts as wrong from the moment it comes, and costs nothing if it is never looked at: because the pool
/// refuses it, or because its client goes away while it waits.
struct Charge<'a> {
    limits: &'a Limits,
    origin: Origin,
    account: AccountName,
    settled: bool,
}

impl<'a> Charge<'a> {
    fn new(limits: &'a Limits, origin: Origin, account: AccountName) -> Result<Self, LoginError> {
        limits.charge(origin, &account, Instant::now())?;
        Ok(Self { limits, origin, account, settled: false })
    }

    fn settled(mut self) {
        self.settled = true;
    }
}

impl Drop for Charge<'_> {
    fn drop(&mut self) {
        if !self.settled {
            self.limits.refund(self.origin, &self.account, Instant::now());
        }
    }
}

fn log_denied(lookup: &AccountLookup, address: IpAddr) {
    // The name of an account that does not exist is not logged: people type passwords into that field.
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
        let Self { address, origin, transcript, started, until, state } = self;
        let Proven { keys, name, account, .. } = state;
        let state = Checked { chain: keys.chain, name, account, verified: None };
        Ok(Logon { address, origin, transcript, started, until, state })
    }
}

impl Logon<Checked> {
    pub(crate) fn needs_code(&self) -> bool {
        self.state.missing_factor().is_some()
    }

    /// Looks at a code; wrong ones leave everything as it is.
    pub(crate) async fn code(&mut self, context: &LoginContext, message: &Message) -> Result<(), LoginError> {
        let SecondFactor { code } = decode(message)?;
        let factor = self.state.missing_factor().ok_or(LoginError::Internal("no code is missing"))?.clone();
        second_factor::verify(context, self.state.account.id, &factor, &code).await?;
        self.state.verified = Some(factor);
        Ok(())
    }

    /// Raises the account's generation: from here on this login is the account's, and every other one is displaced.
    /// The welcome answers `message`. What else it says is asked for meanwhile.
    pub(crate) async fn enter(
        mut self,
        context: &LoginContext,
        message: &Message,
    ) -> Result<EnterOutcome, LoginError> {
        let (address, id) = (self.address, self.state.account.id);
        // Before the generation is raised, so that nothing falls between.
        let generation_watcher = context.revocations.generation_watchers.watch(id);
        let raised = raise_generation(context, &mut self.state, address);
        let account_details = async {
            tokio::join!(context.account_details.play_time_left(id), context.account_details.characters(id))
        };
        let (entered, (play_time_left_ms, characters)) = tokio::join!(raised, account_details);
        let Some(entered) = entered? else { return Ok(EnterOutcome::CodeNeeded(Box::new(self))) };
        let Checked { chain, name, account, .. } = self.state;
        let lease = context.hold_lease(entered);
        let generation = entered.generation;
        let welcome = Welcome { account_id: id.0, play_time_left_ms };
        metrics::welcomed(self.started.elapsed());
        shardkeep_daemon::event!("login", account = id.0, name = name.as_str(), generation = generation.0, %address);
        let viewer = Viewer { staff: account.staff, characters: characters.unwrap_or_default() };
        let client = AuthenticatedClient { account: entered, name, address, generation_watcher, viewer };
        let select = WorldSelect::new(client, chain, lease);
        Ok(EnterOutcome::LoggedIn(Box::new(select), answer(message, &welcome)?))
    }
}

/// Compare-and-set: if another login, a ban, a new password or a second factor came between, look again. `None`: a code
/// is needed for that.
async fn raise_generation(
    context: &LoginContext,
    state: &mut Checked,
    address: IpAddr,
) -> Result<Option<AccountGeneration>, LoginError> {
    let leases = context.lease().is_some();
    for _ in 0..MAX_RACES {
        if state.missing_factor().is_some() {
            return Ok(None);
        }
        let account = &state.account;
        let current = AccountGeneration { id: account.id, generation: account.generation };
        if leases && let Some(wait) = presence::login_conflict(context, current).await? {
            shardkeep_daemon::event!("login_refused", account = account.id.0, reason = "logged in already", %address);
            return Err(LoginError::AlreadyLoggedIn { wait });
        }
        if let Some(entered) = context.account_batcher.log_in(current).await? {
            return Ok(Some(entered));
        }
        let now =
            context.account_batcher.credentials(state.name.as_str()).await?.ok_or(LoginError::Denied)?;
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
