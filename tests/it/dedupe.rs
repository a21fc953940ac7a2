//! The dedupe cache: what every implementation does, and what the Redis one does when its server does not.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use recordkeeper::dedupe::{DedupeError, DedupeStore, IdentityHash, Known, MemoryDedupe, RedisDedupe};
use recordkeeper::event::Digest;
use recordkeeper::redis::{RedisConfig, RedisMode};
use recordkeeper::telemetry::Metrics;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const PASSWORD: &str = "correct-horse";

fn id(of: usize) -> IdentityHash {
    IdentityHash::of(&format!("source|{of}"), "revision")
}

fn known(of: usize) -> Known {
    Known { content_digest: Digest::of(&of.to_be_bytes()), origin: format!("cluster|topic|topic-id|0|3|{of}") }
}

fn entries(range: std::ops::Range<usize>) -> Vec<(IdentityHash, Known)> {
    range.map(|of| (id(of), known(of))).collect()
}

/// What every implementation does.
async fn conforms(dedupe: &dyn DedupeStore) {
    assert_eq!(dedupe.look_up(&[]).await.unwrap(), []);
    dedupe.remember(&[]).await.unwrap();
    assert_eq!(dedupe.look_up(&[id(1), id(2)]).await.unwrap(), [None, None]);

    // More than one call holds; the answers come in the order of the ids, also where one is asked for twice.
    dedupe.remember(&entries(0..2500)).await.unwrap();
    let asked: Vec<usize> = (0..2600).rev().chain([7, 9000, 7]).collect();
    let answers = dedupe.look_up(&asked.iter().map(|of| id(*of)).collect::<Vec<_>>()).await.unwrap();
    assert_eq!(answers.len(), asked.len());
    for (of, answer) in asked.iter().zip(answers) {
        assert_eq!(answer, (*of < 2500).then(|| known(*of)), "{of}");
    }

    // The last word counts, also within one call.
    dedupe.remember(&[(id(1), known(100)), (id(1), known(101))]).await.unwrap();
    assert_eq!(dedupe.look_up(&[id(1)]).await.unwrap(), [Some(known(101))]);

    // Awkward origins are kept as they are.
    let awkward = Known { origin: "c%7C%25|tøpic|\u{1F511}|4294967295|0|18446744073709551615".to_owned(), ..known(2) };
    dedupe.remember(&[(id(2), awkward.clone())]).await.unwrap();
    assert_eq!(dedupe.look_up(&[id(2)]).await.unwrap(), [Some(awkward)]);

    // From many lanes at once.
    let lanes = (0..16).map(|lane| async move {
        let mine = entries(10_000 + lane * 100..10_000 + (lane + 1) * 100);
        dedupe.remember(&mine).await.unwrap();
        let ids: Vec<_> = mine.iter().map(|(id, _)| *id).collect();
        let expected: Vec<_> = mine.into_iter().map(|(_, known)| Some(known)).collect();
        assert_eq!(dedupe.look_up(&ids).await.unwrap(), expected);
    });
    futures::future::join_all(lanes).await;
}

/// A redis-server of its own on a free port, killed with its handle.
struct Redis {
    command: Command,
    child: Child,
    port: u16,
    _folder: Folder,
}

impl Redis {
    async fn start(port: u16, folder: Folder, arguments: &[&str]) -> Self {
        let port_text = port.to_string();
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--save", "", "--daemonize", "no", "--protected-mode", "no"]);
        if !arguments.contains(&"--tls-port") {
            command.args(["--port", &port_text]);
        }
        command.args(arguments).arg("--dir").arg(&folder.0).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.spawn().expect("redis-server must be installed (apt-get install redis-server)");
        let mut redis = Self { command, child, port, _folder: folder };
        redis.up().await;
        redis
    }

    /// Kills the server; the handle can bring it back, without its data.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    async fn back(&mut self) {
        self.child = self.command.spawn().unwrap();
        self.up().await;
    }

    async fn up(&mut self) {
        while TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            assert!(self.child.try_wait().unwrap().is_none(), "redis-server ended at its start");
            tokio::task::yield_now().await;
        }
    }

    async fn plain() -> Self {
        Self::start(free_port(), Folder::new(), &[]).await
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Sends one command around the product, and gives the first bytes of the answer.
    async fn send(&self, parts: &[&[u8]]) -> Vec<u8> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let mut bytes = format!("*{}\r\n", parts.len()).into_bytes();
        for part in parts {
            bytes.extend_from_slice(format!("${}\r\n", part.len()).as_bytes());
            bytes.extend_from_slice(part);
            bytes.extend_from_slice(b"\r\n");
        }
        stream.write_all(&bytes).await.unwrap();
        let mut answer = vec![0; 4096];
        let read = stream.read(&mut answer).await.unwrap();
        answer.truncate(read);
        answer
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A folder that goes away with its handle.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("recordkeeper-dedupe-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, content: &str) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn config(url: String) -> RedisConfig {
    RedisConfig {
        urls: vec![url],
        mode: RedisMode::Single,
        username: None,
        password: None,
        tls_ca_file: None,
        prefix: "rk".to_owned(),
        table_id: "tables".to_owned(),
        ttl: Duration::from_secs(3600),
        connections: NonZeroUsize::new(2).unwrap(),
        // Generous: a busy machine is not an outage.
        deadline: Duration::from_secs(5),
    }
}

fn connected(config: &RedisConfig) -> (RedisDedupe, Metrics) {
    let metrics = Metrics::new().unwrap();
    (RedisDedupe::new(config, &metrics).unwrap(), metrics)
}

fn stored_key(of: usize) -> Vec<u8> {
    [b"rk:tables:1:", &id(of).0[..]].concat()
}

/// Looks up until it gives what is waited for; bounded by a minute.
async fn eventually(dedupe: &RedisDedupe, wanted: impl Fn(&Result<Vec<Option<Known>>, DedupeError>) -> bool) {
    let waiting = async {
        while !wanted(&dedupe.look_up(&[id(1)]).await) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.expect("within a minute");
}

#[tokio::test]
async fn memory_conforms() {
    let metrics = Metrics::new().unwrap();
    conforms(&MemoryDedupe::new(NonZeroUsize::new(100_000).unwrap(), Duration::from_secs(3600), &metrics)).await;
    assert!(metrics.render().contains("recordkeeper_dedupe_lookups_total{result=\"unknown\"} 103\n"));
}

#[tokio::test]
async fn redis_conforms_and_every_key_has_its_time_to_live() {
    let redis = Redis::plain().await;
    let (dedupe, metrics) = connected(&config(redis.url()));
    conforms(&dedupe).await;
    assert!(metrics.render().contains("recordkeeper_dedupe_lookups_total{result=\"unknown\"} 103\n"));
    let info = String::from_utf8(redis.send(&[b"INFO", b"keyspace"]).await).unwrap();
    assert!(info.contains("keys=4100,expires=4100"), "{info}");
    let left = String::from_utf8(redis.send(&[b"TTL", &stored_key(1)]).await).unwrap();
    let left: u64 = left.trim_start_matches(':').trim().parse().unwrap();
    assert!((3000..=3600).contains(&left), "{left}");
}

#[tokio::test]
async fn a_batch_costs_one_round_trip_to_ask_and_one_to_remember() {
    let redis = Redis::plain().await;
    let (dedupe, _) = connected(&config(redis.url()));
    dedupe.remember(&entries(0..500)).await.unwrap();
    dedupe.look_up(&entries(0..500).iter().map(|(id, _)| *id).collect::<Vec<_>>()).await.unwrap();
    let stats = String::from_utf8(redis.send(&[b"INFO", b"commandstats"]).await).unwrap();
    assert!(stats.contains("cmdstat_mget:calls=1,"), "{stats}");
    assert!(stats.contains("cmdstat_set:calls=500,"), "{stats}");
    assert!(!stats.contains("cmdstat_multi"), "{stats}");
}

#[tokio::test]
async fn tables_of_another_installation_are_not_known() {
    let redis = Redis::plain().await;
    let (dedupe, _) = connected(&config(redis.url()));
    dedupe.remember(&entries(1..2)).await.unwrap();
    let (other, _) = connected(&RedisConfig { table_id: "others".to_owned(), ..config(redis.url()) });
    assert_eq!(other.look_up(&[id(1)]).await.unwrap(), [None]);
}

#[tokio::test]
async fn a_flush_makes_all_unknown_and_nothing_else() {
    let redis = Redis::plain().await;
    let (dedupe, _) = connected(&config(redis.url()));
    dedupe.remember(&entries(0..10)).await.unwrap();
    redis.send(&[b"FLUSHALL"]).await;
    assert_eq!(dedupe.look_up(&[id(1), id(2)]).await.unwrap(), [None, None]);
    dedupe.remember(&entries(1..2)).await.unwrap();
    assert_eq!(dedupe.look_up(&[id(1), id(2)]).await.unwrap(), [Some(known(1)), None]);
}

#[tokio::test]
async fn garbage_makes_its_own_id_unknown_and_is_counted() {
    let redis = Redis::plain().await;
    let (dedupe, metrics) = connected(&config(redis.url()));
    dedupe.remember(&entries(0..5)).await.unwrap();
    redis.send(&[b"SET", &stored_key(1), b"\xff\x00garbage"]).await;
    redis.send(&[b"SET", &stored_key(2), b""]).await;
    redis.send(&[b"DEL", &stored_key(3)]).await;
    redis.send(&[b"LPUSH", &stored_key(3), b"of another type"]).await;
    let answers = dedupe.look_up(&[id(0), id(1), id(2), id(3), id(4)]).await.unwrap();
    assert_eq!(answers, [Some(known(0)), None, None, None, Some(known(4))]);
    assert!(metrics.render().contains("recordkeeper_dedupe_lookups_total{result=\"garbled\"} 2\n"));
}

#[tokio::test]
async fn a_killed_server_is_away_then_left_alone_and_used_again_when_it_is_back() {
    let mut redis = Redis::plain().await;
    let (dedupe, metrics) = connected(&config(redis.url()));
    dedupe.remember(&entries(0..10)).await.unwrap();
    redis.kill();

    let first = dedupe.look_up(&[id(1)]).await;
    assert!(matches!(first, Err(DedupeError::Away(_))), "{first:?}");
    assert!(matches!(dedupe.remember(&entries(1..2)).await, Err(DedupeError::Away(_))));
    eventually(&dedupe, |answer| matches!(answer, Err(DedupeError::Open))).await;
    let text = metrics.render();
    assert!(text.contains("recordkeeper_alerts_total{alert=\"dependency_away\"} 1\n"));
    assert!(text.contains("recordkeeper_breaker_state{dependency=\"redis\"} 2\n"));
    assert!(text.contains("recordkeeper_dedupe_remembered_total{result=\"away\"} 1\n"));

    redis.back().await;
    eventually(&dedupe, Result::is_ok).await;
    assert_eq!(dedupe.look_up(&[id(1)]).await.unwrap(), [None]);
    dedupe.remember(&entries(1..2)).await.unwrap();
    assert_eq!(dedupe.look_up(&[id(1)]).await.unwrap(), [Some(known(1))]);
    let text = metrics.render();
    assert!(text.contains("recordkeeper_breaker_state{dependency=\"redis\"} 0\n"));
    assert!(text.contains("recordkeeper_alerts_total{alert=\"dependency_away\"} 1\n"), "one outage, one alert");
}

/// A server that takes connections, counts them, and answers each read with the same bytes (none: never). The first
/// connections get no answer.
async fn pretender(answer: &'static [u8], silent: usize) -> (String, Arc<AtomicUsize>, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&connections);
    let task = tokio::spawn(async move {
        let mut open = tokio::task::JoinSet::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let answer = if counter.fetch_add(1, Ordering::SeqCst) < silent { b"" } else { answer };
            open.spawn(async move {
                let mut request = [0; 65536];
                while stream.read(&mut request).await.is_ok_and(|read| read > 0) {
                    if stream.write_all(answer).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    (url, connections, task)
}

#[tokio::test]
async fn a_server_that_answers_nonsense_never_answers_for_an_id() {
    for (answer, away) in [
        (&b"*1\r\n$-1\r\n"[..], false),
        (b"+OK\r\n", false),
        (b":42\r\n", false),
        (b"-LOADING Redis is loading the dataset in memory\r\n", true),
        (b"-OOM command not allowed when used memory > 'maxmemory'\r\n", true),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", true),
        (b"\x15\x03\x01\x00\x02\x02\x46", true),
        (b"", true),
    ] {
        let (url, connections, task) = pretender(answer, 0).await;
        let deadline = Duration::from_millis(100);
        let (dedupe, metrics) = connected(&RedisConfig { deadline, ..config(url) });
        let error = dedupe.look_up(&[id(1), id(2)]).await.expect_err(&String::from_utf8_lossy(answer));
        let shown = String::from_utf8_lossy(answer);
        match error {
            DedupeError::Away(_) => assert!(away, "{shown}: {error}"),
            DedupeError::Garbled(_) => assert!(!away, "{shown}: {error}"),
            DedupeError::Open => panic!("{shown}: not tried"),
        }
        let result = if away { "away" } else { "garbled" };
        assert!(metrics.render().contains(&format!("recordkeeper_dedupe_lookups_total{{result=\"{result}\"}} 2\n")));
        if away {
            eventually(&dedupe, |answer| matches!(answer, Err(DedupeError::Open))).await;
            assert!(connections.load(Ordering::SeqCst) <= 6, "no storm of reconnects");
        }
        task.abort();
    }
}

#[tokio::test]
async fn connections_that_went_dumb_are_replaced_one_or_all() {
    for silent in [1, 2] {
        let (url, connections, task) = pretender(b"*1\r\n$-1\r\n", silent).await;
        let deadline = Duration::from_millis(100);
        let (dedupe, _) = connected(&RedisConfig { deadline, ..config(url) });
        let waiting = async {
            let mut in_a_row = 0;
            while in_a_row < 8 {
                in_a_row = if dedupe.look_up(&[id(1)]).await.is_ok() { in_a_row + 1 } else { 0 };
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), waiting).await.expect("within a minute");
        assert!(connections.load(Ordering::SeqCst) <= 4);
        task.abort();
    }
}

/// A certificate authority, and a certificate for 127.0.0.1 by it.
fn certificates(folder: &Folder) -> (String, String, String) {
    let mut authority = CertificateParams::new(vec![]).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    (
        folder.file("ca.pem", &authority.pem()),
        folder.file("server.pem", &server.pem()),
        folder.file("server.key", &key.serialize_pem()),
    )
}

#[tokio::test]
async fn tls_and_acl_work_and_are_needed() {
    let folder = Folder::new();
    let (ca, certificate, key) = certificates(&folder);
    // The rights that docs name: nothing else is needed.
    let acl = format!("user default off\nuser keeper on >{PASSWORD} ~rk:* +mget +set\n");
    let acl = folder.file("users.acl", &acl);
    let port = free_port();
    let port_text = port.to_string();
    let arguments = [
        "--port",
        "0",
        "--tls-port",
        &port_text,
        "--tls-cert-file",
        &certificate,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &ca,
        "--tls-auth-clients",
        "no",
        "--aclfile",
        &acl,
    ];
    let redis = Redis::start(port, folder, &arguments).await;
    let right = RedisConfig {
        username: Some("keeper".to_owned()),
        password: Some(PASSWORD.to_owned()),
        tls_ca_file: Some(PathBuf::from(&ca)),
        ..config(format!("rediss://127.0.0.1:{}", redis.port))
    };
    conforms(&connected(&right).0).await;
    let in_url = format!("rediss://keeper:{PASSWORD}@127.0.0.1:{}", redis.port);
    let by_url = RedisConfig { urls: vec![in_url], username: None, password: None, ..right.clone() };
    connected(&by_url).0.look_up(&[id(1)]).await.unwrap();

    for wrong in [
        RedisConfig { password: Some("wrong-horse".to_owned()), ..right.clone() },
        RedisConfig { username: None, password: None, ..right.clone() },
        RedisConfig { prefix: "others".to_owned(), ..right.clone() },
        RedisConfig { tls_ca_file: None, ..right.clone() },
        RedisConfig {
            tls_ca_file: None,
            urls: vec![redis.url()],
            deadline: Duration::from_millis(500),
            ..right.clone()
        },
        RedisConfig { urls: vec![format!("rediss://localhost:{}", redis.port)], ..right.clone() },
    ] {
        let (dedupe, _) = connected(&wrong);
        let error = dedupe.look_up(&[id(1)]).await.unwrap_err();
        assert!(matches!(error, DedupeError::Away(_)), "{wrong:?}: {error}");
        assert!(!format!("{error} {error:?} {wrong:?}").contains("horse"), "{wrong:?}: {error}");
    }
}

async fn cluster() -> Vec<Redis> {
    let mut nodes = Vec::new();
    for _ in 0..3 {
        let folder = Folder::new();
        let arguments =
            ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-require-full-coverage", "no"];
        nodes.push(Redis::start(cluster_port(), folder, &arguments).await);
    }
    let addresses = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port));
    let mut create = tokio::process::Command::new("redis-cli");
    create.args(["--cluster", "create"]).args(addresses).args(["--cluster-yes"]);
    let created = create.output().await.unwrap();
    assert!(created.status.success(), "{created:?}");
    for node in &nodes {
        while !String::from_utf8(node.send(&[b"CLUSTER", b"INFO"]).await).unwrap().contains("cluster_state:ok") {
            tokio::task::yield_now().await;
        }
    }
    nodes
}

/// A free port whose bus port, 10,000 above, is free as well; both below those that the system gives to whoever asks for any
/// (from 32,768 on), so that no other test takes them before the node does.
fn cluster_port() -> u16 {
    loop {
        let port = 11_000 + fastrand::u16(0..11_000);
        let free = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
        if free(port) && free(port + 10_000) {
            return port;
        }
    }
}

#[tokio::test]
async fn a_cluster_conforms_and_rides_out_a_lost_node() {
    let mut nodes = cluster().await;
    let seeds = nodes.iter().map(Redis::url).collect();
    let cluster = RedisConfig {
        urls: seeds,
        mode: RedisMode::Cluster,
        deadline: Duration::from_secs(2),
        ..config(String::new())
    };
    let (dedupe, _) = connected(&cluster);
    conforms(&dedupe).await;
    for node in &nodes {
        let info = String::from_utf8(node.send(&[b"INFO", b"keyspace"]).await).unwrap();
        assert!(info.contains("keys="), "every node holds some: {info}");
    }
    // A client that only knows the first node finds the others.
    let (by_one, _) = connected(&RedisConfig { urls: vec![nodes[0].url()], ..cluster.clone() });
    assert_eq!(by_one.look_up(&[id(3)]).await.unwrap(), [Some(known(3))]);

    nodes[1].kill();
    let ids: Vec<_> = (0..500).map(id).collect();
    let answer = dedupe.look_up(&ids).await;
    assert!(matches!(answer, Err(DedupeError::Away(_))), "{answer:?}");
    nodes[1].back().await;
    // Both connections: calls take them in turn.
    let waiting = async {
        let mut in_a_row = 0;
        while in_a_row < 4 {
            let remembered = dedupe.remember(&entries(0..500)).await;
            let known = dedupe.look_up(&ids).await.map(|answers| answers.iter().flatten().count());
            in_a_row = if remembered.is_ok() && known.is_ok_and(|known| known == ids.len()) { in_a_row + 1 } else { 0 };
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.expect("within a minute");
}

#[test]
fn a_missing_authority_is_named() {
    let missing = Path::new("/nonexistent/ca.pem").to_path_buf();
    let config = RedisConfig { tls_ca_file: Some(missing), ..config("rediss://127.0.0.1:1".to_owned()) };
    let error = RedisDedupe::new(&config, &Metrics::new().unwrap()).err().unwrap().to_string();
    assert!(error.contains("/nonexistent/ca.pem"), "{error}");
}
