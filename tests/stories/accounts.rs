//! Accounts: players see and end their sessions, an operator's ban also reaches a gateway that was frozen, and a closed
//! world admits staff only.

use anyhow::{Context as _, Result, ensure};
use shardkeep_client::{
    ClientError, SessionEnd,
    login::{self, WorldSelect},
    wire::payload::{ErrorCode, WorldStatus},
};
use shardkeep_stories::{Actor, PASSWORD, TIMEOUT, WORLD, log_in, shared, unique_name};
use shardkeep_testkit::{Authenticator, Cluster};
use tokio::time::timeout;

#[tokio::test]
async fn second_login_ends_the_first_session_and_lists_the_character() -> Result<()> {
    let cluster = shared().await?;
    let actor = Actor::enter(cluster, "minder").await?;
    let second = log_in(cluster, &actor.name, PASSWORD).await?;
    ended_with(&actor, ErrorCode::Displaced).await?;
    ensure!(second.worlds()[0].may_enter && second.worlds()[0].recommended);
    timeout(TIMEOUT, wait_for_character_count(cluster, &actor.name))
        .await
        .context("its character is never counted")?
}

#[tokio::test]
async fn player_changes_password_and_ends_other_sessions() -> Result<()> {
    let cluster = shared().await?;
    let name = unique_name("changer");
    cluster.account(&name, PASSWORD).await?;
    let mut login = log_in(cluster, &name, PASSWORD).await?;
    ensure!(login.sessions().await?.is_empty());
    login.change_password("another one").await?;
    ensure!(code(log_in(cluster, &name, PASSWORD).await) == Some(ErrorCode::Denied));
    let mut login = log_in(cluster, &name, "another one").await?;
    ensure!(login.log_out_everywhere().await? == 0);
    // The connection of the request goes on.
    login.select(WORLD).await.map(drop)?;
    Ok(())
}

#[tokio::test]
async fn my_commands_show_sessions_and_change_password() -> Result<()> {
    let cluster = shared().await?;
    let name = unique_name("typist");
    cluster.account(&name, PASSWORD).await?;
    let dns = cluster.dns()?;
    let my_command = |subcommand: &'static str| {
        ["my", subcommand, "--account", name.as_str(), "--dns", dns.as_str(), "--password-stdin"]
    };
    ensure!(cluster.run_cli(&my_command("sessions"), PASSWORD).await?.contains("address"));
    cluster.run_cli(&my_command("password"), &format!("{PASSWORD}\nnew\n")).await?;
    ensure!(cluster.run_cli(&my_command("log-out"), "new").await?.contains("0 sessions ended"));
    let refused = cluster.run_cli(&my_command("log-out"), PASSWORD).await.expect_err("the old password");
    ensure!(refused.to_string().contains("DENIED"), "{refused}");
    Ok(())
}

#[tokio::test]
async fn second_factor_owner_logs_in_after_guesses() -> Result<()> {
    let cluster = shared().await?;
    let actor = Actor::enter(cluster, "owner").await?;
    let name = actor.name.as_str();
    let app = cluster.run_cli(&["account", "second-factor", name, "on"], "").await?;
    let app = Authenticator::scan(&app).context("the link is not readable")?;
    ended_with(&actor, ErrorCode::Kicked).await?;
    let config = shardkeep_stories::config(cluster)?;
    let guess = async || {
        code(login::log_in_with_code(&config, shardkeep_stories::ZONE, name, PASSWORD, "000 00").await)
    };
    let mut answer = guess().await;
    while answer == Some(ErrorCode::WrongCode) {
        answer = guess().await;
    }
    ensure!(answer == Some(ErrorCode::TwoCodes));

    // The first code is not enough after guesses, so login asks for two.
    let dns = cluster.dns()?;
    let my_command = ["my", "sessions", "--account", name, "--dns", dns.as_str(), "--password-stdin"];
    cluster.run_cli(&my_command, &format!("{PASSWORD}\n{}\n{}\n", app.first(), app.two())).await?;
    Ok(())
}

#[tokio::test]
async fn ban_reaches_session_of_frozen_gateway() -> Result<()> {
    let cluster = Cluster::start().await?;
    let one = cluster.announcement("gateway-1")?.client;
    let frozen = Actor::enter_through(&cluster, "frozen", |gateway| gateway == one).await?;
    cluster.freeze("gateway-1")?;
    cluster.run_cli(&["account", "ban", &frozen.name, "--reason", "cheats"], "").await?;
    cluster.thaw("gateway-1")?;
    ended_with(&frozen, ErrorCode::Banned).await?;
    let refused = cluster.run_cli(&["account", "unban", &frozen.name], "").await.expect_err("no reason");
    ensure!(refused.to_string().contains("--reason"), "{refused}");
    cluster.run_cli(&["account", "unban", &frozen.name, "--reason", "appeal"], "").await?;
    log_in(&cluster, &frozen.name, PASSWORD).await?;
    cluster.stop().await
}

#[tokio::test]
async fn operator_ends_sessions_of_an_account() -> Result<()> {
    let cluster = Cluster::start().await?;
    cluster.run_cli(&["gm", "claim", "--password-stdin"], "a long enough password").await?;
    let ann = Actor::enter(&cluster, "ann").await?;
    let sessions = cluster.run_cli(&["gm", "sessions", &ann.name], "").await?;
    ensure!(sessions.contains("1 session") && sessions.contains("127.0.0.1"), "{sessions}");
    cluster.run_cli(&["gm", "log-out", &ann.name, "--reason", "asked us to"], "").await?;
    ended_with(&ann, ErrorCode::Kicked).await?;
    ensure!(cluster.run_cli(&["gm", "audit"], "").await?.contains("asked us to"));
    cluster.stop().await
}

#[tokio::test]
async fn closed_world_admits_staff_only() -> Result<()> {
    let cluster = Cluster::start().await?;
    cluster.run_cli(&["gm", "claim", "--password-stdin"], "a long enough password").await?;
    let name = unique_name("member");
    cluster.account(&name, PASSWORD).await?;
    let mut before = log_in(&cluster, &name, PASSWORD).await?;
    let world = WORLD.to_string();
    cluster.run_cli(&["gm", "maintenance", &world, "closed", "--reason", "until nine"], "").await?;
    wait_for_status(&mut before, WorldStatus::WorldMaintenance).await?;
    ensure!(before.worlds()[0].note == "until nine" && !before.worlds()[0].may_enter);
    ensure!(code(before.select(WORLD).await) == Some(ErrorCode::Maintenance));
    let worlds = cluster.run_cli(&["gm", "worlds"], "").await?;
    ensure!(worlds.contains("closed to players: until nine"), "{worlds}");
    let nowhere = ["gm", "maintenance", "7", "closed", "--reason", "a slip"];
    let nowhere = cluster.run_cli(&nowhere, "").await.expect_err("there is no world 7");
    ensure!(nowhere.to_string().contains("there is no world 7"), "{nowhere}");
    cluster.run_cli(&["account", "staff", &name, "on"], "").await?;
    let config = shardkeep_stories::config(&cluster)?;
    let mut staff =
        shardkeep_client::login::log_in(&config, shardkeep_stories::ZONE, &name, PASSWORD).await?;
    wait_for_status(&mut staff, WorldStatus::WorldMaintenance).await?;
    staff.select(WORLD).await.context("staff enters")?;
    cluster.run_cli(&["gm", "maintenance", &world, "open", "--reason", "done"], "").await?;
    wait_for_status(&mut staff, WorldStatus::WorldUp).await?;
    let audit = cluster.run_cli(&["gm", "audit"], "").await?;
    for entry in ["close world 1 to players", "open world 1 to players", "until nine"] {
        ensure!(audit.contains(entry), "the audit has no entry {entry:?}:\n{audit}");
    }
    cluster.stop().await
}

async fn wait_for_status(worlds: &mut WorldSelect, status: WorldStatus) -> Result<()> {
    let changes = async {
        while worlds.worlds().first().is_none_or(|world| world.status() != status) {
            worlds.next_worlds().await?;
        }
        Ok::<(), ClientError>(())
    };
    timeout(TIMEOUT, changes).await.with_context(|| format!("the world never becomes {status:?}"))??;
    Ok(())
}

/// On a busy machine a world list may come without the count. The next list has it.
async fn wait_for_character_count(cluster: &Cluster, name: &str) -> Result<()> {
    while log_in(cluster, name, PASSWORD).await?.worlds()[0].characters != 1 {}
    Ok(())
}

async fn ended_with(actor: &Actor, code: ErrorCode) -> Result<()> {
    let end = timeout(TIMEOUT, actor.player.session().ended()).await.context("the session goes on")?;
    let expected = matches!(&end, SessionEnd::Refused(refusal) if refusal.code == code);
    ensure!(expected, "{}: expected {code:?}, ended with {end:?}", actor.name);
    Ok(())
}

fn code<T>(result: Result<T, ClientError>) -> Option<ErrorCode> {
    result.err().and_then(|error| error.code())
}
