//! `shardkeep my …`: a player manages an account over the sealed connection to login, and needs only the address of a DNS
//! server. Operators use `shardkeep account`.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use shardkeep_client::{
    ClientError, Config,
    login::{self, LoginConnection, WorldSelect},
    wire::payload::ErrorCode,
};
use shardkeep_types::Secret;

use crate::{data_dir::DataDir, terminal};

#[derive(Debug, Args)]
pub struct MyArgs {
    #[command(subcommand)]
    command: Command,
    /// Account
    #[arg(long, global = true, default_value = "")]
    account: String,
    /// Read all secrets from standard input, one line each: the password, then codes or the new password
    #[arg(long, global = true)]
    password_stdin: bool,
    /// Address of the cluster's DNS server; the local cluster's when absent
    #[arg(long, global = true)]
    dns: Option<String>,
    /// DNS zone of the cluster
    #[arg(long, global = true, default_value = "shardkeep.test")]
    zone: String,
    /// Name of the deployment
    #[arg(long, global = true, default_value = "dev")]
    deployment: String,
    /// Folder of the local cluster
    #[arg(long, global = true, default_value = "var", env = "SHARDKEEP_DATA_DIR")]
    data_dir: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Register an account
    Register {
        /// The region's public key, 64 hexadecimal digits (`shardkeep account region` prints it)
        #[arg(long)]
        region_key: String,
        /// An invitation, if the region requires one
        #[arg(long, default_value = "")]
        token: String,
    },
    /// Set a new password; the old one stops working at once
    Password,
    /// Where the account is logged in
    Sessions,
    /// End every session of the account
    LogOut,
    /// Require a code of an authenticator app at each login
    AddSecondFactor,
    /// Require the password alone again
    RemoveSecondFactor,
}

pub async fn run(args: MyArgs) -> Result<()> {
    if args.account.is_empty() {
        bail!("no account named: add --account NAME");
    }
    let config = config(&args).await?;
    let password = ask_password(&args, &format!("Password for {}", args.account))?;
    if let Command::Register { region_key, token } = &args.command {
        return register(&args, &config, region_key, token, &password).await;
    }
    let mut account = log_in(&args, &config, &password).await?;
    match args.command {
        Command::Register { .. } => unreachable!("done above"),
        Command::Password => {
            let new = terminal::secret("New password", "new password", args.password_stdin)?;
            let ended = account.change_password(new.expose()).await?;
            println!("the password is changed; {ended} sessions ended");
        }
        Command::Sessions => {
            let mut table = terminal::table(["world", "address", "age", "link"]);
            for it in account.sessions().await? {
                let link = if it.link_lost { "lost" } else { "up" };
                let age = format!("{} s", it.age_ms / 1_000);
                table.add_row([it.world_id.to_string(), it.address, age, link.to_owned()]);
            }
            println!("{table}");
        }
        Command::LogOut => println!("{} sessions ended", account.log_out_everywhere().await?),
        Command::AddSecondFactor => {
            println!("{}", account.begin_second_factor().await?.uri);
            let code = code(&args, "Code of the authenticator")?;
            let ended = account.confirm_second_factor(code.expose()).await?;
            println!("from now on each login asks for a code; {ended} sessions ended");
        }
        Command::RemoveSecondFactor => {
            let code = code(&args, "Another code of the authenticator")?;
            account.remove_second_factor(code.expose()).await?;
            println!("logins ask for the password alone");
        }
    }
    Ok(())
}

async fn config(args: &MyArgs) -> Result<Config> {
    let dns = match &args.dns {
        Some(address) => address.clone(),
        None => {
            let dir = DataDir::new(&args.data_dir)?;
            dir.announced("dns-1")
                .context("no local cluster: `shardkeep up` starts one, --dns names another")?
                .client
        }
    };
    let server =
        tokio::net::lookup_host(&dns).await?.next().with_context(|| format!("{dns} has no address"))?;
    Ok(Config::with_dns(server).deployment(&args.deployment))
}

fn ask_password(args: &MyArgs, prompt: &str) -> Result<Secret<String>> {
    terminal::password(prompt, args.password_stdin)
}

fn code(args: &MyArgs, prompt: &str) -> Result<Secret<String>> {
    terminal::secret(prompt, "code of the authenticator", args.password_stdin)
}

/// Asks the person for a code if the server requires one.
async fn log_in(args: &MyArgs, config: &Config, password: &Secret<String>) -> Result<WorldSelect> {
    match login::log_in(config, &args.zone, &args.account, password.expose()).await {
        Err(ClientError::Refused(refusal)) if refusal.code == ErrorCode::SecondFactor => {
            let log_in = async |codes: &Secret<String>| {
                let (zone, account) = (&args.zone, &args.account);
                login::log_in_with_code(config, zone, account, password.expose(), codes.expose()).await
            };
            match log_in(&code(args, "Code of the authenticator")?).await {
                // Too many wrong codes came with the right password.
                Err(ClientError::Refused(refusal)) if refusal.code == ErrorCode::TwoCodes => {
                    eprintln!("{}", refusal.detail);
                    Ok(log_in(&code(args, "Two codes in a row")?).await?)
                }
                done => Ok(done?),
            }
        }
        done => Ok(done?),
    }
}

async fn register(
    args: &MyArgs,
    config: &Config,
    region_key: &str,
    token: &str,
    password: &Secret<String>,
) -> Result<()> {
    let key = region(region_key)?;
    let address = login::find(config, &args.zone).await?;
    let address = address.first().context("no login server is up")?;
    let mut login_connection = LoginConnection::open(config, *address).await?;
    let id = login_connection.register(&key, &args.account, password.expose(), token).await?;
    println!("registered account {} (id {id})", args.account);
    Ok(())
}

fn region(text: &str) -> Result<[u8; 32]> {
    let mut key = [0; 32];
    hex::decode_to_slice(text.trim(), &mut key).context("--region-key: 64 hexadecimal digits")?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn region_key_must_be_64_hex_digits() {
        assert_eq!(region(&"0f".repeat(32)).unwrap(), [15; 32]);
        for wrong in ["", "0f", &"zz".repeat(32), &"ü".repeat(32), &"+f".repeat(32)] {
            assert!(region(wrong).is_err(), "{wrong:?}");
        }
    }
}
