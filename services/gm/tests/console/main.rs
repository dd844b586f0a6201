//! The console over real sockets: pages and gRPC calls of a daemon that has no registry.

mod browser;
mod live_page;

use std::time::Duration;

use browser::Browser;
use shardkeep_daemon::{BoundAddresses, Running, Settings, launch};
use shardkeep_gm::{Config, Gm};
use shardkeep_rpc::{
    gm::{
        AuditRequest, Broadcast, Command, Credit, Daemons, Maintenance, OneTimeLinkRequest, Operators,
        SignInRequest, UseLinkRequest, command::Command as CommandKind, gm_client::GmClient,
    },
    tonic::{Code, Request, transport::Channel},
};
use shardkeep_testkit::{FakeCluster, Postgres, assert_each_panic_ends_the_daemon};
use shardkeep_types::DaemonKind;

const PASSWORD: &str = "correct horse battery";

struct Console {
    cluster: FakeCluster,
    running: Running,
    bound: BoundAddresses,
}

impl Console {
    async fn start() -> Self {
        Self::start_with(Config::default()).await
    }

    async fn start_with(service: Config) -> Self {
        let cluster = FakeCluster::without_registry();
        let running = cluster.launch::<Gm>(settings(&cluster, service)).await;
        Self { cluster, bound: running.daemon().bound(), running }
    }

    fn browser(&self) -> Browser {
        Browser::new(&self.bound.client)
    }

    async fn wait_for_metric(&self, line: &str) {
        while !self.browser().get_from(&self.bound.admin, "/metrics").await.body.contains(line) {
            tokio::task::yield_now().await;
        }
    }

    fn grpc_as(&self, kind: DaemonKind) -> GmClient<Channel> {
        let name = format!("a-{kind}");
        GmClient::new(self.cluster.channel(kind, &name, DaemonKind::Gm, &self.bound.grpc))
    }

    fn grpc(&self) -> GmClient<Channel> {
        self.grpc_as(DaemonKind::Cli)
    }

    async fn link(&self) -> String {
        self.grpc().one_time_link(OneTimeLinkRequest {}).await.unwrap().into_inner().url
    }

    /// A browser in which `admin` is signed in.
    async fn admin(&self) -> Browser {
        let link = self.link().await;
        let request = UseLinkRequest { link, password: PASSWORD.into() };
        self.grpc().use_link(request).await.unwrap();
        self.signed_in("admin").await
    }

    async fn signed_in(&self, operator: &str) -> Browser {
        let mut browser = self.browser();
        let fields = [("operator", operator), ("password", PASSWORD)];
        assert_eq!(browser.submit("/sign-in", "/sign-in", &fields).await.location(), "/");
        browser
    }

    /// Adds an operator with this role. Returns a browser in which the operator is signed in.
    async fn operator(&self, admin: &mut Browser, name: &str, role: &str) -> Browser {
        let fields = [("name", name), ("role", role), ("password", PASSWORD), ("reason", "new here")];
        let added = admin.submit("/operators", "/do/operator", &fields).await;
        assert_eq!(added.status, 303, "{}", added.body);
        self.signed_in(name).await
    }
}

fn settings(cluster: &FakeCluster, service: Config) -> Settings<Config> {
    let mut settings = cluster.settings(DaemonKind::Gm, "gm-1");
    settings.daemon.grace = Duration::from_secs(5);
    settings.service = service;
    settings
}

fn bearer<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

fn path_of(url: &str) -> String {
    url.splitn(4, '/').nth(3).map(|path| format!("/{path}")).unwrap()
}

#[tokio::test]
async fn first_sign_in_uses_one_time_link_and_sets_password() {
    let console = Console::start().await;
    let link = path_of(&console.link().await);
    let mut browser = console.browser();
    assert_eq!(browser.get("/").await.location(), "/sign-in");
    let used = browser.submit(&link, &link, &[]).await;
    assert_eq!((used.status, used.location()), (303, "/password"));
    for page in ["/", "/operators", "/map/events"] {
        assert_eq!(browser.get(page).await.location(), "/password", "{page}");
    }
    let set = browser.submit("/password", "/password", &[("new", PASSWORD), ("again", PASSWORD)]).await;
    assert_eq!((set.status, set.location()), (303, "/"));
    assert!(browser.get("/").await.body.contains("admin"));
    let audit = browser.get("/audit").await.body;
    for noted in
        ["make a one-time link", "grpc tester (cli/a-cli)", "sign in by one-time link", "set the password"]
    {
        assert!(audit.contains(noted), "{noted}: {audit}");
    }
    assert_eq!(console.browser().submit(&link, &link, &[]).await.status, 401, "a link works once");
}

#[tokio::test]
async fn invalid_first_password_is_refused_and_the_form_can_be_sent_again() {
    let console = Console::start().await;
    let link = path_of(&console.link().await);
    let mut browser = console.browser();
    browser.submit(&link, &link, &[]).await;
    let short = browser.submit("/password", "/password", &[("new", "short"), ("again", "short")]).await;
    assert_eq!(short.status, 400);
    let differ =
        browser.submit("/password", "/password", &[("new", PASSWORD), ("again", "another one")]).await;
    assert_eq!(differ.status, 400);
    assert!(differ.body.contains("the two new passwords differ"), "{}", differ.body);
    let again = [("csrf", differ.csrf()), ("new", PASSWORD.into()), ("again", "another one".to_owned())];
    let again: Vec<(&str, &str)> = again.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let again = browser.post("/password", &again).await;
    assert_eq!(again.status, 400, "the form shows the error and can be sent again");
}

#[tokio::test]
async fn password_change_needs_the_current_password() {
    let console = Console::start().await;
    let mut browser = console.admin().await;
    let wrong = [("current", "not this one"), ("new", PASSWORD), ("again", PASSWORD)];
    let wrong = browser.submit("/password", "/password", &wrong).await;
    assert_eq!(wrong.status, 401);
    assert!(wrong.body.contains("the current password is wrong") && !wrong.csrf().is_empty());
}

#[tokio::test]
async fn sign_out_ends_the_session() {
    let console = Console::start().await;
    let mut browser = console.admin().await;
    assert_eq!(browser.submit("/", "/sign-out", &[]).await.location(), "/sign-in");
    assert_eq!(browser.get("/").await.location(), "/sign-in");
    console.signed_in("admin").await;
    console.running.stop().await.unwrap();
}

#[tokio::test]
async fn wrong_password_and_unknown_name_look_alike_and_throttle() {
    let console = Console::start().await;
    let mut admin = console.admin().await;
    let mut browser = console.browser();
    let mut attempt = async |operator: &str| {
        let page =
            browser.submit("/sign-in", "/sign-in", &[("operator", operator), ("password", "not this")]).await;
        (page.status, page.body.contains("wrong name or password"))
    };
    assert_eq!(attempt("admin").await, (401, true));
    assert_eq!(attempt("nobody").await, (401, true));
    let mut throttled = 0;
    for _ in 0..12 {
        throttled += u32::from(attempt("nobody").await.0 == 429);
    }
    assert!(throttled >= 3, "{throttled}");
    let audit = admin.get("/audit").await.body;
    assert!(audit.contains("nobody") && audit.contains("denied"), "the audit has refused sign-ins");
}

#[tokio::test]
async fn forms_without_csrf_token_are_refused() {
    let console = Console::start().await;
    let mut admin = console.admin().await;
    let fields = [("text", "hello"), ("reason", "test")];
    assert_eq!(admin.post("/do/broadcast", &fields).await.status, 403);
    let stolen = console.signed_in("admin").await.get("/chat").await.csrf();
    let forged = [("csrf", stolen.as_str()), ("text", "hello"), ("reason", "test")];
    assert_eq!(admin.post("/do/broadcast", &forged).await.status, 403, "another session's token");
    assert_eq!(admin.post("/sign-out", &[]).await.status, 403);
    assert_eq!(
        console.browser().post("/sign-in", &[("operator", "admin"), ("password", PASSWORD)]).await.status,
        403
    );
    assert!(!admin.get("/audit").await.body.contains("broadcast"), "no command was executed");
}

#[tokio::test]
async fn roles_are_enforced_and_refusals_are_audited() {
    let console = Console::start().await;
    let mut admin = console.admin().await;
    let mut viewer = console.operator(&mut admin, "vera", "viewer").await;
    for page in ["/", "/worlds", "/players", "/map", "/messages"] {
        assert_eq!(viewer.get(page).await.status, 200, "{page}");
    }
    for page in ["/chat", "/audit", "/logs", "/operators"] {
        assert_eq!(viewer.get(page).await.status, 403, "{page}");
    }
    let kick = [("account", "mallory"), ("reason", "I do not like them"), ("back", "/players")];
    let refused = viewer.submit("/", "/do/kick", &kick).await;
    assert_eq!(refused.status, 303);
    assert!(
        viewer.get(refused.location()).await.body.contains("this needs the role moderator; you are viewer")
    );
    let audit = admin.get("/audit?operator=vera").await.body;
    assert!(audit.contains("kick account mallory") && audit.contains("state denied"), "{audit}");

    // A new role is effective at once. The kick fails because no login runs, and the audit has that too.
    let promote = [("name", "vera"), ("role", "moderator"), ("reason", "earned it")];
    admin.submit("/operators", "/do/operator", &promote).await;
    let failed = viewer.submit("/players", "/do/kick", &kick).await;
    assert!(viewer.get(failed.location()).await.body.contains("no login is up"));
    assert!(viewer.get("/audit").await.body.contains("state failed"));

    let remove = [("name", "vera"), ("role", ""), ("reason", "left us")];
    admin.submit("/operators", "/do/operator", &remove).await;
    assert_eq!(viewer.get("/").await.location(), "/sign-in", "the sessions of a removed operator have ended");
    let own = admin
        .submit("/operators", "/do/operator", &[("name", "admin"), ("role", "viewer"), ("reason", "x")])
        .await;
    assert!(admin.get(own.location()).await.body.contains("another admin must do it"));
}

#[tokio::test]
async fn operator_added_without_password_gets_one_time_link() {
    let console = Console::start().await;
    let mut admin = console.admin().await;
    let fields = [("name", "gus"), ("role", "game-master"), ("reason", "new here")];
    let page = admin.submit("/operators", "/do/operator", &fields).await;
    assert_eq!(page.status, 200);
    let link = page.body.split("value=\"http").nth(1).unwrap().split('"').next().unwrap();
    let link = path_of(&format!("http{link}"));
    let audit = admin.get("/audit").await.body;
    assert!(!audit.contains(link.rsplit('/').next().unwrap()), "the audit does not contain the link");
    let mut gus = console.browser();
    gus.submit(&link, &link, &[]).await;
    let set = gus.submit("/password", "/password", &[("new", PASSWORD), ("again", PASSWORD)]).await;
    assert_eq!(set.location(), "/");
    assert_eq!(gus.get("/audit").await.status, 200);
}

#[tokio::test]
async fn user_input_is_escaped_in_pages() {
    let console = Console::start().await;
    let mut admin = console.admin().await;
    let script = "<script>alert(1)</script>";
    let fields = [("character", script), ("minutes", "5"), ("reason", script), ("back", "//evil.example/")];
    let done = admin.submit("/chat", "/do/mute", &fields).await;
    assert!(done.location().starts_with("/?done="), "{}", done.location());
    for page in [done.location(), "/audit", "/players?q=<script>", "/logs?sql=<script>"] {
        let page = admin.get(&page.replace('<', "%3C").replace('>', "%3E")).await;
        assert_eq!(page.status, 200);
        assert!(!page.body.contains("<script>"), "{}", page.body);
        let policy = &page.headers["content-security-policy"];
        assert!(policy.contains("script-src 'self'") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(page.headers["cache-control"], "no-store");
    }
    let cookies = console.browser().get("/sign-in").await.set_cookies.join("\n");
    assert!(cookies.contains("HttpOnly; SameSite=Strict"), "{cookies}");
    assert_eq!(admin.get("/nowhere").await.status, 404);
    assert_eq!(admin.get("/static/map.js").await.headers["content-type"], "text/javascript; charset=utf-8");
    let missing = admin.submit("/chat", "/do/broadcast", &[("text", "hello")]).await;
    assert!(admin.get(missing.location()).await.body.contains("give a reason"));
}

#[tokio::test]
async fn cookies_are_secure_behind_tls_proxy() {
    let console = Console::start_with(Config { behind_tls_proxy: true, ..Config::default() }).await;
    let cookies = console.browser().get("/sign-in").await.set_cookies.join("\n");
    assert!(cookies.contains("; Secure"), "{cookies}");
}

#[tokio::test]
async fn open_streams_do_not_delay_drain() {
    let console = Console::start().await;
    let admin = console.admin().await;
    let streams = ["/map/events?world=1", "/live/overview"].map(|path| {
        let mut browser = admin.clone();
        tokio::spawn(async move { browser.get(path).await })
    });
    let began = std::time::Instant::now();
    console.wait_for_metric("shardkeep_gm_map_viewers 1").await;
    console.wait_for_metric("shardkeep_gm_live_pages 1").await;
    console.running.stop().await.unwrap();
    for stream in streams {
        assert_eq!(stream.await.unwrap().status, 200);
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test]
async fn live_stream_sends_the_page_once_and_ends_with_its_session() {
    let console = Console::start().await;
    let mut admin = console.admin().await;
    assert!(admin.get("/").await.body.contains("data-stream=\"/live/overview\""));
    let mut watching = admin.clone();
    let stream = tokio::spawn(async move { watching.get("/live/overview").await });
    console.wait_for_metric("shardkeep_gm_live_pages 1").await;
    assert_eq!(admin.submit("/", "/sign-out", &[]).await.location(), "/sign-in");
    let stream = stream.await.unwrap();
    assert_eq!(stream.headers["content-type"], "text/event-stream");
    let tiles = stream.body.matches(r#""part":"tiles""#).count();
    assert!(tiles <= 1, "unchanged rows are sent again: {}", stream.body);
    assert_eq!(console.browser().get("/live/overview").await.location(), "/sign-in");
}

#[tokio::test]
async fn live_stream_of_a_page_needs_the_right_to_see_it() {
    let console = Console::start().await;
    let mut admin = console.admin().await;
    let mut viewer = console.operator(&mut admin, "vera", "viewer").await;
    assert_eq!(viewer.get("/live/chat").await.status, 403);
    assert_eq!(viewer.get("/live/nothing").await.status, 404);
}

#[tokio::test]
async fn silent_connections_of_one_host_do_not_keep_operators_out() {
    let console = Console::start().await;
    let mut silent = Vec::new();
    for _ in 0..600 {
        silent.push(tokio::net::TcpStream::connect(&console.bound.client).await.unwrap());
    }
    let signed_in = tokio::time::timeout(Duration::from_secs(20), console.admin()).await;
    let mut admin = signed_in.expect("the sign-in does not wait for silent connections");
    assert_eq!(admin.get("/").await.status, 200);
    let mut admin_endpoint = console.browser();
    assert_eq!(admin_endpoint.get_from(&console.bound.admin, "/livez").await.status, 200);
}

#[tokio::test]
async fn panic_in_any_console_task_ends_the_console() {
    let clusters = std::cell::RefCell::new(Vec::new());
    let start = || {
        let cluster = FakeCluster::without_registry();
        let settings = settings(&cluster, Config::default());
        clusters.borrow_mut().push(cluster);
        async move { launch::<Gm>(settings).await.unwrap() }
    };
    let tasks = assert_each_panic_ends_the_daemon(start).await;
    for task in ["players", "map", "mutes", "web"] {
        assert!(tasks.contains(&task), "{task} is not among {tasks:?}");
    }
}

#[tokio::test]
async fn search_without_daemons_says_which_are_missing() {
    let console = Console::start().await;
    let mut admin = console.admin().await;
    let page = admin.get("/players?q=ann").await;
    assert_eq!(page.status, 200);
    for missing in ["no dbcache is up", "no login is up"] {
        assert!(page.body.contains(missing), "{missing}: {}", page.body);
    }
}

#[tokio::test]
async fn grpc_client_signs_in_with_its_password() {
    let console = Console::start().await;
    let mut grpc = console.grpc();
    let unauthenticated = grpc.execute(Command::default()).await.unwrap_err();
    assert_eq!(unauthenticated.code(), Code::Unauthenticated);
    console.admin().await;
    let wrong = SignInRequest { operator: "admin".into(), password: "not this".into() };
    assert_eq!(grpc.sign_in(wrong).await.unwrap_err().code(), Code::Unauthenticated);
    let right = SignInRequest { operator: "admin".into(), password: PASSWORD.into() };
    let reply = grpc.sign_in(right).await.unwrap().into_inner();
    assert_eq!((reply.role.as_str(), reply.operator.as_str()), ("admin", "admin"));
    assert!(reply.idle_s > 0 && reply.idle_s < reply.expires_in_s);
}

#[tokio::test]
async fn sign_in_link_is_refused_to_daemons() {
    let console = Console::start().await;
    let stranger = console.grpc_as(DaemonKind::Zone).one_time_link(OneTimeLinkRequest {}).await.unwrap_err();
    assert_eq!(stranger.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn grpc_commands_are_executed_or_refused_and_audited() {
    let postgres = Postgres::start().await;
    let console = Console::start_with(Config { store: postgres.url(), ..Config::default() }).await;
    console.admin().await;
    let mut grpc = console.grpc();
    let sign_in = SignInRequest { operator: "admin".into(), password: PASSWORD.into() };
    let token = grpc.sign_in(sign_in).await.unwrap().into_inner().token;

    let operators = Command { reason: String::new(), command: Some(CommandKind::Operators(Operators {})) };
    let listed = grpc.execute(bearer(&token, operators)).await.unwrap().into_inner();
    assert!(
        listed.text.contains("admin") && listed.text.contains("signs in with a password"),
        "{}",
        listed.text
    );
    let close = CommandKind::Maintenance(Maintenance { world: 7, closed: true, seconds: None });
    let close = Command { reason: "a slip".into(), command: Some(close) };
    let unknown = grpc.execute(bearer(&token, close)).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    assert!(unknown.message().contains("there is no world 7"), "{}", unknown.message());

    let daemons = Command { reason: String::new(), command: Some(CommandKind::Daemons(Daemons {})) };
    let listed = grpc.execute(bearer(&token, daemons)).await.unwrap().into_inner();
    assert!(listed.json.contains("\"daemons\""), "{}", listed.json);
    let broadcast = CommandKind::Broadcast(Broadcast { world: 0, text: "hello".into() });
    let unreasoned = Command { reason: " ".into(), command: Some(broadcast.clone()) };
    let status = grpc.execute(bearer(&token, unreasoned)).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let reasoned = Command { reason: "maintenance".into(), command: Some(broadcast) };
    assert_eq!(grpc.execute(bearer(&token, reasoned)).await.unwrap_err().code(), Code::Unavailable);
    let credit = CommandKind::Credit(Credit { account: "ann".into(), hours: 0, key: String::new() });
    let malformed = Command { reason: "x".into(), command: Some(credit) };
    assert_eq!(grpc.execute(bearer(&token, malformed)).await.unwrap_err().code(), Code::InvalidArgument);

    let audit = grpc.audit(bearer(&token, AuditRequest::default())).await.unwrap().into_inner().entries;
    let outcomes: Vec<(&str, &str)> =
        audit.iter().map(|entry| (entry.command.as_str(), entry.outcome.as_str())).take(4).collect();
    assert_eq!(
        outcomes[1..],
        [
            ("broadcast to all worlds: hello", "failed"),
            ("broadcast to all worlds: hello", "failed"),
            ("list the daemons", "done"),
        ]
    );
    assert!(outcomes[0].0.starts_with("malformed command") && outcomes[0].1 == "failed");
    console.running.stop().await.unwrap();
}
