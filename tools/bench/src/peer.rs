//! A program that a user would otherwise install, run beside ours in the same minute.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use crate::load::REQUEST;

const START_TIMEOUT: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A server in a temporary folder. It ends with this value.
pub struct Peer {
    child: Child,
    folder: TempDir,
}

impl Peer {
    /// Starts the program with its configuration and more files in a fresh folder, and waits until `port` takes
    /// connections. In `config` and `args`, `{folder}` stands for that folder and `{config}` for the file.
    /// `None` when it is not installed.
    pub fn start(
        program: &str,
        config: &str,
        args: &[&str],
        port: u16,
        files: &[(&str, &str)],
    ) -> Result<Option<Self>> {
        let folder = tempfile::Builder::new().prefix("shardkeep-bench-").tempdir()?;
        let path = folder.path().join("config");
        let substitute = |text: &str| {
            text.replace("{folder}", &folder.path().to_string_lossy())
                .replace("{config}", &path.to_string_lossy())
        };
        std::fs::write(&path, substitute(config))?;
        for (name, content) in files {
            std::fs::write(folder.path().join(name), content)?;
        }
        let log = File::create(folder.path().join("log"))?;
        let mut command = Command::new(program);
        command.args(args.iter().map(|arg| substitute(arg)));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = match command.spawn() {
            Ok(child) => child,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot run {program}")),
        };
        let mut peer = Self { child, folder };
        peer.wait(program, port)?;
        Ok(Some(peer))
    }

    fn wait(&mut self, program: &str, port: u16) -> Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            if self.child.try_wait()?.is_some() || Instant::now() > deadline {
                let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
                bail!("{program} does not start: {}", log.trim());
            }
            thread::sleep(POLL_INTERVAL);
        }
        Ok(())
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// HAProxy relaying bytes from one port to another.
pub fn haproxy(from: u16, to: u16) -> Result<Option<Peer>> {
    let proxy = format!("listen relay\n  mode tcp\n  bind 127.0.0.1:{from}\n  server echo 127.0.0.1:{to}\n");
    start_haproxy(from, &proxy, &[])
}

/// HAProxy ending TLS 1.3 with this certificate and key, and waiting for a request. Without tickets each handshake is a
/// full one, and making tickets costs it nothing.
pub fn haproxy_tls(port: u16, pem: &str, tickets: bool) -> Result<Option<Peer>> {
    let tickets = if tickets { "" } else { "no-tls-tickets" };
    let proxy = format!(
        "frontend tls\n  mode http\n  http-request return status 204\n  \
         bind 127.0.0.1:{port} ssl crt {{folder}}/cert.pem ssl-min-ver TLSv1.3 {tickets}\n"
    );
    start_haproxy(port, &proxy, &[("cert.pem", pem)])
}

/// Argument by which this program becomes what [`bare_server`] starts.
pub const BARE_SERVER: &str = "bare-server";

/// A process that accepts connections, sends `answers` answers on each, and closes it when the client closes. With 0 answers
/// it closes at once. It does nothing else.
pub fn bare_server(port: u16, answers: usize) -> Result<Peer> {
    let program = std::env::current_exe()?;
    let program = program.to_str().context("the path of this program is no text")?;
    let arguments = [BARE_SERVER, &port.to_string(), &answers.to_string()];
    Peer::start(program, "", &arguments, port, &[])?.context("this program is gone")
}

/// What [`bare_server`] runs.
pub fn run_bare_server(arguments: &[String]) -> Result<()> {
    let [port, answers] = arguments else { bail!("a port and a number of answers are missing") };
    let (port, answers) = (port.parse::<u16>()?, answers.parse()?);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    loop {
        // A client that goes away early, as who looks whether the port is open, is not its concern.
        let _ = answer_requests(listener.accept()?.0, answers);
    }
}

fn answer_requests(mut stream: TcpStream, answers: usize) -> io::Result<()> {
    if answers == 0 {
        return Ok(());
    }
    stream.set_nodelay(true)?;
    let mut message = REQUEST;
    for _ in 0..answers {
        stream.read_exact(&mut message)?;
        stream.write_all(&message)?;
    }
    stream.read(&mut message).map(drop)
}

fn start_haproxy(port: u16, proxy: &str, files: &[(&str, &str)]) -> Result<Option<Peer>> {
    let config = format!(
        "global\n  maxconn 8000\ndefaults\n  timeout connect 5s\n  timeout client 1m\n  timeout server 1m\n{proxy}"
    );
    Peer::start("haproxy", &config, &["-db", "-f", "{config}"], port, files)
}

/// nginx handing out the files of a folder, set up as for that.
pub fn nginx_files(port: u16, root: &Path) -> Result<Option<Peer>> {
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|module| format!("{module}_temp_path {{folder}}/{module}; "))
        .collect();
    let config = format!(
        "daemon off;\nmaster_process off;\npid {{folder}}/pid;\nerror_log {{folder}}/errors;\n\
         events {{ worker_connections 4000; }}\n\
         http {{ access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000; {temporary}\n\
         open_file_cache max=4000; server {{ listen 127.0.0.1:{port} backlog=2000; root {}; }} }}\n",
        root.display()
    );
    Peer::start("nginx", &config, &["-p", "{folder}", "-c", "{config}"], port, &[])
}

/// nginx relaying bytes from one port to another.
pub fn nginx(from: u16, to: u16) -> Result<Option<Peer>> {
    const MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";
    if !std::path::Path::new(MODULE).exists() {
        return Ok(None);
    }
    let config = format!(
        "load_module {MODULE};\ndaemon off;\nmaster_process off;\npid {{folder}}/pid;\nerror_log {{folder}}/errors;\n\
         events {{ worker_connections 4000; }}\n\
         stream {{ server {{ listen 127.0.0.1:{from}; proxy_pass 127.0.0.1:{to}; tcp_nodelay on; }} }}\n"
    );
    Peer::start("nginx", &config, &["-p", "{folder}", "-c", "{config}"], from, &[])
}
