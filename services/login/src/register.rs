//! Accounts that players make themselves: sealed to the region's key, by the rule of the settings.

use std::{net::IpAddr, time::Instant};

use aws_lc_rs::digest;
use prost::Message as _;
use shardkeep_auth::{AccountName, ChannelBinding};
use shardkeep_daemon::Origin;
use shardkeep_store::accounts::invitations::Registered;
use shardkeep_types::Secret;
use shardkeep_wire::{
    Message, WireError,
    payload::{self, NewAccount, Registration},
};

use crate::{
    LoginError, authority,
    config::RegistrationMode,
    context::LoginContext,
    logon, metrics,
    verifiers::{NewVerifier, Requester, prepare_proof},
};

/// The answer to `Register`.
pub(crate) async fn answer(
    context: &LoginContext,
    address: IpAddr,
    preface: &ChannelBinding,
    message: &Message,
) -> Result<Message, LoginError> {
    let registered = register(context, address, preface, message).await;
    metrics::registration(registered.as_ref().map_or_else(LoginError::label, |_| "ok"));
    registered
}

async fn register(
    context: &LoginContext,
    address: IpAddr,
    preface: &ChannelBinding,
    message: &Message,
) -> Result<Message, LoginError> {
    if context.config.registration == RegistrationMode::Closed {
        return Err(LoginError::Refused("accounts can not be registered here"));
    }
    context.registrations.begin(Origin::of(address), Instant::now()).map_err(|error| match error {
        LoginError::Throttled { wait, .. } => LoginError::Throttled { limit: "registrations", wait },
        other => other,
    })?;
    let request: payload::Register = message.decode().map_err(WireError::from)?;
    let (opened, reply) = context
        .region
        .open(preface, &request.key, &request.sealed)
        .map_err(|_| LoginError::Malformed("Register is not sealed to this region's key"))?;
    let opened = Secret::new(opened);
    let wanted = Registration::decode(&opened.expose()[..])
        .map_err(|_| LoginError::Malformed("what is sealed in Register is no Registration"))?;
    let name = AccountName::normalise(&wanted.account)
        .map_err(|_| LoginError::Malformed("that is no account name"))?;
    let Registration { group, salt, verifier, token, .. } = wanted;
    let made = NewVerifier { name: name.clone(), group, salt, verifier };
    let proof = prepare_proof(&context.pool, Requester::Anonymous(address), made).await?;

    let made = match context.config.registration {
        RegistrationMode::Open => authority::create(context, &name, &proof)
            .await?
            .map_or(Registered::NameTaken, Registered::Created),
        _ => authority::register(context, &token_hash(&token), &name, &proof).await?,
    };
    let id = match made {
        Registered::Created(id) => id,
        Registered::NameTaken => return Err(LoginError::Refused("this name is taken")),
        Registered::NotInvited => {
            return Err(LoginError::Refused("this invitation is not, or no longer, good"));
        }
    };
    shardkeep_daemon::event!(
        "account_created",
        account = id.0,
        name = name.as_str(),
        operator = "the player"
    );
    let sealed = reply.seal(&NewAccount { account_id: id.0 }.encode_to_vec());
    let sealed = sealed.map_err(|_| LoginError::Internal("an answer can not be sealed"))?;
    logon::answer(message, &payload::Registered { sealed })
}

/// What is kept of an invitation.
pub(crate) fn token_hash(token: &str) -> [u8; 32] {
    let hash = digest::digest(&digest::SHA256, token.trim().as_bytes());
    hash.as_ref().try_into().unwrap_or_default()
}
