//! Operators' commands, and their effect on players who are logged in.

use shardkeep_rpc::accounts::{
    BanRequest, ListRequest, LogOutRequest, SetVerifierRequest, ShowRequest, UnbanRequest,
    show_request::Selector,
};
use shardkeep_testkit::GatewayCall;
use shardkeep_wire::payload::{ErrorCode, WorldStatus};
use tonic::Code;

use crate::cluster::{Cluster, new_account};

#[tokio::test]
async fn account_name_taken_or_invalid_is_refused() {
    let cluster = Cluster::start().await;
    cluster.account(" Alice", "right").await;
    let mut accounts = cluster.accounts();
    let again = accounts.create(new_account("alice", "other")).await.unwrap_err();
    assert_eq!(again.code(), Code::AlreadyExists);
    let nameless =
        shardkeep_rpc::accounts::CreateRequest { name: "x".into(), ..new_account("alice", "right") };
    assert_eq!(accounts.create(nameless).await.unwrap_err().code(), Code::InvalidArgument);
    let mut weak = new_account("bob", "right");
    weak.salt = vec![0; 16];
    assert_eq!(accounts.create(weak).await.unwrap_err().code(), Code::InvalidArgument);
    let mut weak = new_account("bob", "right");
    weak.verifier.clear();
    assert_eq!(accounts.create(weak).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn account_is_found_by_id_name_and_prefix() {
    let cluster = Cluster::start().await;
    let id = cluster.account(" Alice", "right").await;
    let mut accounts = cluster.accounts();
    let by_id = accounts.show(ShowRequest { selector: Some(Selector::Id(id)) }).await.unwrap().into_inner();
    assert_eq!(by_id, cluster.show("ALICE").await);
    assert_eq!((by_id.id, by_id.name.as_str(), by_id.generation, by_id.last_login_ms), (id, "alice", 1, 0));
    let unknown =
        accounts.show(ShowRequest { selector: Some(Selector::Name("nobody".into())) }).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    cluster.account("alf", "x").await;
    cluster.account("bob", "x").await;
    let list = ListRequest { prefix: "al".into(), after: "alf".into(), limit: 10 };
    let names: Vec<_> = accounts.list(list).await.unwrap().into_inner().accounts;
    assert_eq!(names, [cluster.show("alice").await]);
}

#[tokio::test]
async fn ban_ends_sessions_and_is_shown_only_after_proof() {
    let mut cluster = Cluster::start().await;
    cluster.world(1, "Dawn").await;
    let id = cluster.account("alice", "right").await;
    let mut player = cluster.connect().await;
    player.log_in("alice", "right").await.unwrap();
    player
        .worlds_until(|list| list.worlds.first().is_some_and(|world| world.status() == WorldStatus::WorldUp))
        .await;
    player.select(1).await.unwrap();

    let mut accounts = cluster.accounts();
    let ban =
        BanRequest { name: "alice".into(), until_ms: u64::MAX, reason: "cheats".into(), everywhere: false };
    let groundless = BanRequest { reason: " ".into(), ..ban.clone() };
    assert_eq!(accounts.ban(groundless).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(accounts.ban(ban).await.unwrap().into_inner().sessions_ended, 1);
    let revoked = cluster.gateway.wait_for_call(|asked| match asked {
        GatewayCall::RevokeAccount(request) if request.code == ErrorCode::Banned as u32 => {
            Some(request.clone())
        }
        _ => None,
    });
    let revoked = revoked.await;
    assert_eq!(
        (revoked.account, revoked.below_generation, revoked.detail.as_str()),
        (id, 3, "for ever: cheats")
    );
    // The connection at the world list closes, and the ticket is revoked.
    assert_eq!(player.last_error().await, Some(ErrorCode::Banned));
    let ticket = cluster.gateway.admitted()[0].ticket_id.clone();
    assert!(cluster.gateway.calls().contains(&GatewayCall::RevokeTicket(ticket)));

    let wrong = cluster.connect().await.log_in("alice", "wrong").await.unwrap_err();
    assert_eq!(wrong.code, ErrorCode::Denied, "only who knows the password learns of the ban");
    let banned = cluster.connect().await.log_in("alice", "right").await.unwrap_err();
    assert_eq!((banned.code, banned.detail.as_str()), (ErrorCode::Banned, "for ever: cheats"));

    accounts
        .unban(UnbanRequest { name: "alice".into(), everywhere: false, reason: "appeal".into() })
        .await
        .unwrap();
    cluster.connect().await.log_in("alice", "right").await.unwrap();
    let past = BanRequest { name: "alice".into(), until_ms: 1, ..BanRequest::default() };
    assert_eq!(accounts.ban(past).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn password_change_and_log_out_end_sessions() {
    let mut cluster = Cluster::start().await;
    cluster.world(1, "Dawn").await;
    cluster.account("alice", "old").await;
    let mut player = cluster.connect().await;
    player.log_in("alice", "old").await.unwrap();
    player
        .worlds_until(|list| list.worlds.first().is_some_and(|world| world.status() == WorldStatus::WorldUp))
        .await;
    let mut accounts = cluster.accounts();
    let created = new_account("alice", "new");
    let change = SetVerifierRequest {
        name: created.name,
        group: created.group,
        salt: created.salt,
        verifier: created.verifier,
    };
    accounts.set_verifier(change).await.unwrap();
    assert_eq!(player.select(1).await.unwrap_err().code, ErrorCode::Displaced);
    assert_eq!(cluster.connect().await.log_in("alice", "old").await.unwrap_err().code, ErrorCode::Denied);
    cluster.connect().await.log_in("alice", "new").await.unwrap();
    let out = accounts.log_out_everywhere(LogOutRequest { name: "alice".into() }).await.unwrap().into_inner();
    assert_eq!(out.sessions_ended, 1);
    assert_eq!(cluster.show("alice").await.generation, 5);
}
