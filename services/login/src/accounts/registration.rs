//! Accounts that players register themselves, sealed to the region's key and by the rule of the settings.

use std::{net::IpAddr, sync::Arc, time::Instant};

use aws_lc_rs::digest;
use prost::Message as _;
use shardkeep_auth::{AccountName, ChannelBinding, registration::RegionKey};
use shardkeep_daemon::Origin;
use shardkeep_store::accounts::invitations::Registered;
use shardkeep_types::Secret;
use shardkeep_wire::{
    Message,
    payload::{self, NewAccount, Registration},
};

use crate::{
    accounts::{
        authority::Authority,
        verifiers::{NewVerifier, Requester, prepare_proof},
    },
    config::{Config, Limits as LimitsConfig, RegistrationMode},
    door::limits::Limits,
    error::LoginError,
    logon::pool::Pool,
    metrics,
    replies::{decode, reply},
};

pub(crate) struct Registrations {
    mode: RegistrationMode,
    /// All replicas have the same key.
    region: RegionKey,
    /// Attempts per address.
    limits: Limits,
    pool: Pool,
    authority: Arc<Authority>,
}

impl Registrations {
    pub(crate) fn new(config: &Config, region: RegionKey, pool: Pool, authority: Arc<Authority>) -> Self {
        let limits = LimitsConfig { attempts: config.registrations, ..config.limits.clone() };
        Self { mode: config.registration, region, limits: Limits::new(limits), pool, authority }
    }

    pub(crate) fn mode(&self) -> RegistrationMode {
        self.mode
    }

    pub(crate) fn region_key(&self) -> Vec<u8> {
        self.region.public().to_vec()
    }

    /// The answer to `Register`.
    pub(crate) async fn answer(
        &self,
        address: IpAddr,
        preface: &ChannelBinding,
        message: &Message,
    ) -> Result<Message, LoginError> {
        let registered = self.register(address, preface, message).await;
        metrics::registration(registered.as_ref().map_or_else(LoginError::label, |_| "ok"));
        registered
    }

    async fn register(
        &self,
        address: IpAddr,
        preface: &ChannelBinding,
        message: &Message,
    ) -> Result<Message, LoginError> {
        if self.mode == RegistrationMode::Closed {
            return Err(LoginError::Refused(
                "this server takes no registrations; ask its operators for an account",
            ));
        }
        self.limits.begin(Origin::of(address), Instant::now()).map_err(|error| match error {
            LoginError::Throttled { wait, .. } => LoginError::Throttled { limit: "registrations", wait },
            other => other,
        })?;
        let request: payload::Register = decode(message)?;
        let (opened, answer) = self
            .region
            .open(preface, &request.key, &request.sealed)
            .map_err(|_| LoginError::Malformed("Register is not sealed to this region's key"))?;
        let opened = Secret::new(opened);
        let wanted = Registration::decode(&opened.expose()[..])
            .map_err(|_| LoginError::Malformed("Register does not contain a Registration"))?;
        let name = AccountName::normalise(&wanted.account)
            .map_err(|_| LoginError::Malformed("Registration.account is not an account name"))?;
        let Registration { group, salt, verifier, token, .. } = wanted;
        let made = NewVerifier { name: name.clone(), group, salt, verifier };
        let proof = prepare_proof(&self.pool, Requester::Anonymous(address), made).await?;

        let made = match self.mode {
            RegistrationMode::Open => {
                let created = self.authority.create(&name, &proof).await?;
                created.map_or(Registered::NameTaken, Registered::Created)
            }
            _ => self.authority.register(&token_hash(&token), &name, &proof).await?,
        };
        let id = match made {
            Registered::Created(id) => id,
            Registered::NameTaken => {
                return Err(LoginError::Refused("this name is taken; choose another one"));
            }
            Registered::NotInvited => {
                return Err(LoginError::Refused("this invitation is unknown, used up or expired"));
            }
        };
        shardkeep_daemon::event!(
            "account_created",
            account = id.0,
            name = name.as_str(),
            operator = "the player"
        );
        let sealed = answer.seal(&NewAccount { account_id: id.0 }.encode_to_vec());
        let sealed = sealed.map_err(|_| LoginError::Internal("the answer to Register cannot be sealed"))?;
        reply(message, &payload::Registered { sealed })
    }
}

/// The store keeps this hash of an invitation.
pub(crate) fn token_hash(token: &str) -> [u8; 32] {
    let hash = digest::digest(&digest::SHA256, token.trim().as_bytes());
    hash.as_ref().try_into().unwrap_or_default()
}
