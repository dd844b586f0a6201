//! Accounts that players register themselves.

use prost::Message as _;
use shardkeep_auth::{
    registration::{self, ReplyKey},
    srp::SALT_BYTES,
};
use shardkeep_rpc::accounts::{InviteRequest, RegionRequest};
use shardkeep_types::Secret;
use shardkeep_wire::{
    opcode,
    payload::{ErrorCode, NewAccount, Register, Registered, Registration},
};

use crate::{
    cluster::{Cluster, new_account},
    player::{Outcome, Player},
};

pub(crate) async fn region(cluster: &Cluster) -> [u8; 32] {
    let region = cluster.accounts().region(RegionRequest {}).await.unwrap().into_inner();
    region.public_key.try_into().unwrap()
}

pub(crate) async fn register(
    player: &mut Player,
    region: &[u8; 32],
    name: &str,
    password: &str,
    token: &str,
) -> Outcome<u64> {
    let (request, answer) = registration(region, name, password, token);
    let reply: Registered = player.request(opcode::REGISTER, &request).await?;
    let opened = answer.open(&reply.sealed).expect("the region itself answers");
    Ok(NewAccount::decode(&opened[..]).unwrap().account_id)
}

/// The request, and the state that opens its answer.
pub(crate) fn registration(
    region: &[u8; 32],
    name: &str,
    password: &str,
    token: &str,
) -> (Register, ReplyKey) {
    let account = new_account(name, password);
    let wanted = Registration {
        account: account.name,
        group: account.group,
        salt: account.salt,
        verifier: account.verifier,
        token: token.to_owned(),
    };
    let fresh = Secret::new([0x33; 32]);
    let sealed = registration::seal(region, &Player::preface(), &fresh, &wanted.encode_to_vec()).unwrap();
    (Register { key: sealed.key.to_vec(), sealed: sealed.sealed, ..Register::default() }, sealed.reply)
}

#[tokio::test]
async fn open_registration_creates_account_that_can_log_in() {
    let cluster = Cluster::start_with(&["login.registration=open"]).await;
    let region = region(&cluster).await;
    let mut player = cluster.connect().await;
    let id = register(&mut player, &region, "Alice", "right", "").await.unwrap();
    assert_eq!(cluster.show("alice").await.id, id);
    let mut player = cluster.connect().await;
    assert_eq!(player.log_in("alice", "right").await.unwrap().account_id, id);

    let taken = register(&mut cluster.connect().await, &region, "ALICE", "mine now", "").await.unwrap_err();
    assert_eq!(
        (taken.code, taken.detail.as_str()),
        (ErrorCode::Refused, "this name is taken; choose another one")
    );
    cluster.connect().await.log_in("alice", "right").await.unwrap();
    let other = registration::RegionKey::new(&Secret::new([1; 32])).unwrap();
    let strange = register(&mut cluster.connect().await, other.public(), "bob", "x", "").await.unwrap_err();
    assert_eq!(strange.code, ErrorCode::Malformed, "sealed to another key");
    for request in [
        Register::default(),
        Register { key: vec![0; 32], sealed: vec![0; SALT_BYTES], ..Register::default() },
    ] {
        let refused = cluster.connect().await.request::<Registered>(opcode::REGISTER, &request).await;
        assert_eq!(refused.unwrap_err().code, ErrorCode::Malformed);
    }
    // One address may try five times in a row.
    let throttled = register(&mut cluster.connect().await, &region, "carol", "x", "").await.unwrap_err();
    assert_eq!(throttled.code, ErrorCode::Throttled);
}

#[tokio::test]
async fn token_registration_needs_an_invitation() {
    let mut cluster = Cluster::start_with(&["login.registration=token"]).await;
    let key = region(&cluster).await;
    let invite = InviteRequest { uses: 1, lifetime_ms: 3_600_000 };
    let token = cluster.accounts().invite(invite).await.unwrap().into_inner().token;
    let refused = register(&mut cluster.connect().await, &key, "alice", "right", "guess").await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Refused);
    // The key belongs to the region, not to the process.
    cluster.restart().await;
    assert_eq!(region(&cluster).await, key);
    register(&mut cluster.connect().await, &key, "alice", "right", &token).await.unwrap();
    let again = register(&mut cluster.connect().await, &key, "bob", "right", &token).await.unwrap_err();
    assert_eq!(again.code, ErrorCode::Refused, "used up");
    assert!(!cluster.log().contains(&token));
    let forever = InviteRequest { uses: 0, lifetime_ms: 1 };
    assert!(cluster.accounts().invite(forever).await.is_err());

    let closed = Cluster::start().await;
    let key = region(&closed).await;
    let refused = register(&mut closed.connect().await, &key, "alice", "right", &token).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Refused, "closed unless it is opened");
}
