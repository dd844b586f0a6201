//! `shardkeep account …`: creates, shows and bans accounts. This tool computes the SRP verifier, so that no password is sent.

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use shardkeep_auth::{
    AccountName,
    srp::{Group, SALT_BYTES, Verifier},
};
use shardkeep_daemon::{random_bytes, unix_millis};
use shardkeep_rpc::{
    accounts::{
        Account, ActiveIn, BanRequest, CreateRequest, InviteRequest, ListRequest, LogOutRequest,
        RegionRequest, SessionsReply, SessionsRequest, SetSecondFactorRequest, SetStaffRequest,
        SetVerifierRequest, ShowRequest, UnbanRequest, accounts_client::AccountsClient,
        show_request::Selector,
    },
    tonic::{Code, transport::Channel},
};
use shardkeep_types::utc_minute;

use crate::{
    operator::{ClusterArgs, Operator},
    terminal,
};

/// Group of new verifiers.
pub const GROUP: Group = Group::Bits2048;

#[derive(Debug, Args)]
pub struct AccountArgs {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create an account
    Create {
        name: String,
        /// Read the password from standard input instead of asking for it
        #[arg(long)]
        password_stdin: bool,
        /// Bits of the SRP group: 2048, 3072 or 4096
        #[arg(long, default_value = "2048", value_parser = group)]
        group: Group,
    },
    /// Set a new password
    Password {
        name: String,
        /// Read the password from standard input instead of asking for it
        #[arg(long)]
        password_stdin: bool,
        /// Bits of the SRP group: 2048, 3072 or 4096
        #[arg(long, default_value = "2048", value_parser = group)]
        group: Group,
    },
    /// Show one account
    Show { name: String },
    /// List accounts by name
    List {
        /// Only names that start with this
        #[arg(default_value = "")]
        prefix: String,
        #[arg(long, default_value_t = 100)]
        limit: u32,
    },
    /// Lock an account out and end its sessions
    Ban {
        name: String,
        /// Length of the ban; without end when absent
        #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
        hours: Option<u64>,
        #[arg(long)]
        reason: String,
        /// In all regions of the centre; otherwise in this one
        #[arg(long)]
        everywhere: bool,
    },
    /// Let a banned account in again
    Unban {
        name: String,
        /// Why; the log keeps it
        #[arg(long)]
        reason: String,
        /// End the ban in all regions, and not this one's own
        #[arg(long)]
        everywhere: bool,
    },
    /// End all sessions of an account
    LogOut { name: String },
    /// Where an account is logged in
    Sessions { name: String },
    /// Let an account enter worlds that are closed to players, or end that
    Staff {
        name: String,
        #[arg(value_enum)]
        mode: Switch,
    },
    /// Give an account a second factor and print the link for an authenticator app, or remove it
    SecondFactor {
        name: String,
        #[arg(value_enum)]
        mode: Switch,
    },
    /// Make a token for registrations (`login.registration = "token"`)
    Invite {
        /// Accounts that the token can create
        #[arg(long, default_value_t = 1)]
        uses: u32,
        #[arg(long, default_value_t = 72)]
        hours: u64,
    },
    /// Print the region's name, its registration mode and the public key that seals registrations
    Region,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Switch {
    On,
    Off,
}

pub async fn run(args: AccountArgs) -> Result<()> {
    let operator = Operator::connect(&args.cluster).await?;
    let mut accounts = operator.accounts().await?;
    match args.command {
        Command::Create { name, password_stdin, group } => {
            let (name, salt, verifier) = verifier(group, &name, password_stdin)?;
            let request = CreateRequest { name: name.clone(), group: group.bits(), salt, verifier };
            let id = accounts.create(request).await.map_err(terminal::status_error)?.into_inner().account;
            println!("created account {name} (id {id})");
        }
        Command::Password { name, password_stdin, group } => {
            let (name, salt, verifier) = verifier(group, &name, password_stdin)?;
            let request = SetVerifierRequest { name: name.clone(), group: group.bits(), salt, verifier };
            accounts.set_verifier(request).await.map_err(terminal::status_error)?;
            println!("the password of {name} is changed");
        }
        Command::Show { name } => {
            let request = ShowRequest { selector: Some(Selector::Name(name)) };
            let account = accounts.show(request).await.map_err(terminal::status_error)?.into_inner();
            print(std::slice::from_ref(&account));
            print_regions(&account);
        }
        Command::List { prefix, limit } => {
            let request = ListRequest { prefix, after: String::new(), limit };
            print(&accounts.list(request).await.map_err(terminal::status_error)?.into_inner().accounts);
        }
        Command::Ban { name, hours, reason, everywhere } => {
            let until_ms =
                hours.map_or(u64::MAX, |hours| unix_millis().saturating_add(hours.saturating_mul(3_600_000)));
            let request = BanRequest { name: name.clone(), until_ms, reason, everywhere };
            let ended =
                accounts.ban(request).await.map_err(terminal::status_error)?.into_inner().sessions_ended;
            if everywhere {
                println!("{name} is banned in all regions; its sessions end");
            } else {
                println!("{name} is banned; {ended} sessions ended");
            }
        }
        Command::Unban { name, reason, everywhere } => {
            let request = UnbanRequest { name: name.clone(), everywhere, reason };
            accounts.unban(request).await.map_err(terminal::status_error)?;
            let whose = if everywhere { "; a region's own ban stays" } else { "" };
            println!("{name} may log in again{whose}");
        }
        Command::LogOut { name } => {
            let request = LogOutRequest { name: name.clone() };
            let ended = accounts
                .log_out_everywhere(request)
                .await
                .map_err(terminal::status_error)?
                .into_inner()
                .sessions_ended;
            println!("{name}: {ended} sessions ended");
        }
        Command::Sessions { name } => {
            let reply = accounts.sessions(SessionsRequest { name }).await.map_err(terminal::status_error)?;
            print_sessions(&reply.into_inner());
        }
        Command::Staff { name, mode } => {
            let staff = mode == Switch::On;
            let request = SetStaffRequest { name: name.clone(), staff };
            accounts.set_staff(request).await.map_err(terminal::status_error)?;
            println!("{name} {}", if staff { "is staff" } else { "is not staff" });
        }
        Command::SecondFactor { name, mode } => {
            let request = SetSecondFactorRequest { name: name.clone(), on: mode == Switch::On };
            let reply = accounts.set_second_factor(request).await.map_err(terminal::status_error)?;
            match reply.into_inner().uri.as_str() {
                "" => println!("{name} has no second factor"),
                uri => println!("{uri}"),
            }
        }
        Command::Invite { uses, hours } => {
            let request = InviteRequest { uses, lifetime_ms: hours.saturating_mul(3_600_000) };
            println!(
                "{}",
                accounts.invite(request).await.map_err(terminal::status_error)?.into_inner().token
            );
        }
        Command::Region => {
            let region =
                accounts.region(RegionRequest {}).await.map_err(terminal::status_error)?.into_inner();
            println!("public key    {}", hex(&region.public_key));
            println!("registration  {}", region.registration);
            if !region.region.is_empty() {
                println!("region        {}", region.region);
            }
        }
    }
    Ok(())
}

fn group(bits: &str) -> Result<Group> {
    bits.parse().ok().and_then(Group::from_bits).context("must be 2048, 3072 or 4096")
}

/// Normalised name, salt, verifier.
fn verifier(group: Group, name: &str, from_stdin: bool) -> Result<(String, Vec<u8>, Vec<u8>)> {
    let password = terminal::password(&format!("Password for {name}"), from_stdin)?;
    verifier_in(group, name, password.expose())
}

/// The values that an account store keeps: normalised name, salt, verifier.
pub fn new_verifier(name: &str, password: &str) -> Result<(String, Vec<u8>, Vec<u8>)> {
    verifier_in(GROUP, name, password)
}

fn verifier_in(group: Group, name: &str, password: &str) -> Result<(String, Vec<u8>, Vec<u8>)> {
    let name = AccountName::normalise(name).context("account name")?;
    let verifier = Verifier::create(group, &name, password, random_bytes::<SALT_BYTES>()?)?;
    Ok((name.as_str().to_owned(), verifier.salt().to_vec(), verifier.verifier().expose().clone()))
}

/// A password for programs: 128 random bits in hexadecimal.
pub fn random_password() -> Result<String> {
    Ok(hex(&random_bytes::<16>()?))
}

/// Makes the account, or gives it this password if it exists.
pub async fn ensure(accounts: &mut AccountsClient<Channel>, name: &str, password: &str) -> Result<()> {
    let (name, salt, verifier) = new_verifier(name, password)?;
    let group = GROUP.bits();
    let request = CreateRequest { name: name.clone(), group, salt: salt.clone(), verifier: verifier.clone() };
    match accounts.create(request).await {
        Ok(_) => Ok(()),
        Err(status) if status.code() == Code::AlreadyExists => {
            accounts
                .set_verifier(SetVerifierRequest { name, group, salt, verifier })
                .await
                .map_err(terminal::status_error)?;
            Ok(())
        }
        Err(status) => Err(terminal::status_error(status)),
    }
}

fn print(accounts: &[Account]) {
    let mut table = terminal::table(["id", "name", "generation", "created", "last login", "ban", "marks"]);
    for it in accounts {
        let row = [
            it.id.to_string(),
            it.name.clone(),
            if it.generation == 0 { "-".into() } else { it.generation.to_string() },
            utc_minute(it.created_ms),
            if it.last_login_ms == 0 { "never".into() } else { utc_minute(it.last_login_ms) },
            bans(it),
            flags(it),
        ];
        table.add_row(row);
    }
    println!("{table}");
}

fn bans(account: &Account) -> String {
    let describe = |until_ms: u64, reason: &str, where_: &str| match until_ms {
        0 => None,
        u64::MAX => Some(format!("{where_}for ever: {reason}")),
        until => Some(format!("{where_}until {}: {reason}", utc_minute(until))),
    };
    let own = describe(account.banned_until_ms, &account.ban_reason, "");
    let all = describe(account.banned_everywhere_until_ms, &account.ban_everywhere_reason, "everywhere, ");
    let bans: Vec<String> = own.into_iter().chain(all).collect();
    if bans.is_empty() { "-".to_owned() } else { bans.join("\n") }
}

/// Prints nothing in a region without a centre.
fn print_regions(account: &Account) {
    if account.central_unavailable {
        println!("the centre does not answer: in which other regions it is active is not known");
    } else if !account.active_in.is_empty() {
        let describe = |it: &ActiveIn| format!("{} since {}", it.region, utc_minute(it.since_ms));
        let regions: Vec<String> = account.active_in.iter().map(describe).collect();
        println!("active in {}", regions.join(", "));
    }
    if account.generation == 0 {
        println!("not active in this region: the first login makes it so");
    }
}

fn flags(account: &Account) -> String {
    let flags = [(account.staff, "staff"), (account.second_factor, "second factor")];
    flags.iter().filter(|(set, _)| *set).map(|(_, mark)| *mark).collect::<Vec<_>>().join(", ")
}

fn print_sessions(reply: &SessionsReply) {
    let mut table = terminal::table(["world", "address", "gateway", "age", "link"]);
    for it in &reply.sessions {
        let link = if it.link_dead { "lost" } else { "up" };
        table.add_row([
            it.world.to_string(),
            it.address.clone(),
            it.gateway.clone(),
            format!("{} s", it.age_ms / 1_000),
            link.to_owned(),
        ]);
    }
    println!("{table}");
    for gateway in &reply.unreachable_gateways {
        println!("{gateway} does not answer");
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
