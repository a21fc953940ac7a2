//! One suite that every dedupe cache passes, and what Redis does when it is away, guarded, or holds nonsense.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use recordkeeper::dedupe::{
    DedupeError, DedupeStore, IdentityHash, Known, MemoryDedupe, RedisConfig, RedisDedupe, RedisMode,
};
use recordkeeper::event::Digest;
use recordkeeper::telemetry::Metrics;

use crate::services;

fn id(name: &str) -> IdentityHash {
    IdentityHash::of(name)
}

fn known(content: &str, origin: &str) -> Known {
    Known { content_digest: Digest::of(content.as_bytes()), origin: origin.to_owned() }
}

fn config(url: &str, table_id: &str) -> RedisConfig {
    RedisConfig {
        urls: vec![url.to_owned()],
        mode: RedisMode::Single,
        username: None,
        password: None,
        tls_ca_file: None,
        prefix: "recordkeeper".to_owned(),
        table_id: table_id.to_owned(),
        ttl: Duration::from_secs(60),
        connections: NonZeroUsize::MIN,
        deadline: Duration::from_secs(5),
    }
}

/// What any cache must do.
async fn conformance(dedupe: &dyn DedupeStore) {
    let ids: Vec<IdentityHash> = (0..700).map(|n| id(&format!("conformance-{n}"))).collect();
    assert_eq!(dedupe.look_up(&ids).await.unwrap(), vec![None; 700]);
    let done: Vec<(IdentityHash, Known)> = ids
        .iter()
        .step_by(2)
        .enumerate()
        .map(|(n, id)| (*id, known(&n.to_string(), &format!("c|t|i|0|0|{n}"))))
        .collect();
    dedupe.remember(&done).await.unwrap();
    let answers = dedupe.look_up(&ids).await.unwrap();
    assert_eq!(answers.len(), 700);
    for (n, answer) in answers.iter().enumerate() {
        let expected = (n % 2 == 0).then(|| known(&(n / 2).to_string(), &format!("c|t|i|0|0|{}", n / 2)));
        assert_eq!(*answer, expected, "answers come in the order of the ids");
    }
    let other = known("other", "c|t|i|0|1|9");
    dedupe.remember(&[(ids[0], other.clone())]).await.unwrap();
    assert_eq!(dedupe.look_up(&ids[..1]).await.unwrap(), [Some(other)]);
    assert_eq!(dedupe.look_up(&[]).await.unwrap(), []);
    dedupe.remember(&[]).await.unwrap();
}

#[tokio::test]
async fn the_cache_in_the_process_conforms() {
    let metrics = Metrics::new().unwrap();
    conformance(&MemoryDedupe::new(NonZeroUsize::new(10_000).unwrap(), Duration::from_secs(60), &metrics)).await;
}

#[tokio::test]
async fn redis_conforms() {
    let url = &services::redis().await.url;
    let metrics = Metrics::new().unwrap();
    conformance(&RedisDedupe::new(&config(url, "conformance"), &metrics).unwrap()).await;
}

#[tokio::test]
async fn every_key_has_a_time_to_live_and_installations_share_none() {
    let url = &services::redis().await.url;
    let metrics = Metrics::new().unwrap();
    let mine = RedisDedupe::new(&config(url, "ttl-mine"), &metrics).unwrap();
    let theirs = RedisDedupe::new(&config(url, "ttl-theirs"), &metrics).unwrap();
    mine.remember(&[(id("x"), known("x", "c|t|i|0|0|7"))]).await.unwrap();
    assert_eq!(theirs.look_up(&[id("x")]).await.unwrap(), [None]);
    let client = redis::Client::open(url.as_str()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let keys: Vec<Vec<u8>> =
        redis::cmd("KEYS").arg("recordkeeper:ttl-mine:*").query_async(&mut connection).await.unwrap();
    assert_eq!(keys.len(), 1);
    let ttl: i64 = redis::cmd("TTL").arg(&keys[0]).query_async(&mut connection).await.unwrap();
    assert!((1..=60).contains(&ttl), "{ttl}");
    // A value that is none of ours is unknown, for that id alone.
    mine.remember(&[(id("y"), known("y", "c|t|i|0|0|7"))]).await.unwrap();
    redis::cmd("SET").arg(&keys[0]).arg("garbage").query_async::<()>(&mut connection).await.unwrap();
    assert_eq!(mine.look_up(&[id("x"), id("y")]).await.unwrap(), [None, Some(known("y", "c|t|i|0|0|7"))]);
    assert!(metrics.render().contains("recordkeeper_dedupe_lookups_total{result=\"garbled\"} 1\n"));
}

#[tokio::test]
async fn a_server_that_is_away_is_left_alone_and_found_again() {
    let server = services::Redis::start(&[]).await;
    let metrics = Metrics::new().unwrap();
    let dedupe =
        RedisDedupe::new(&RedisConfig { deadline: Duration::from_secs(1), ..config(&server.url, "away") }, &metrics)
            .unwrap();
    dedupe.remember(&[(id("x"), known("x", "c|t|i|0|0|7"))]).await.unwrap();
    let port = server.port;
    server.kill();
    let mut away = 0;
    // Bounded: the breaker opens after a few failures.
    for _ in 0..100 {
        match dedupe.look_up(&[id("x")]).await {
            Err(DedupeError::Away(_)) => away += 1,
            Err(DedupeError::Open) => break,
            other => panic!("{other:?}"),
        }
    }
    assert!((1..100).contains(&away), "{away}");
    assert!(metrics.render().contains("recordkeeper_dedupe_breaker_open 1\n"));
    let _again = services::Redis::start_at(port, &[]).await;
    let back = async {
        while dedupe.look_up(&[id("x")]).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), back).await.expect("it is used again");
    assert_eq!(dedupe.look_up(&[id("x")]).await.unwrap(), [None], "a new server knows nothing");
}

#[tokio::test]
async fn tls_and_an_access_control_list_are_used_and_the_password_is_never_shown() {
    let folder = services::scratch("redis-tls");
    let write = |name: &str, text: &str| -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let signed = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
    let certificate = write("cert.pem", &signed.cert.pem());
    let key = write("key.pem", &signed.signing_key.serialize_pem());
    let users = write(
        "users.acl",
        "user default off\nuser rk on >pw-8d1f ~recordkeeper:* +@read +@write +@connection +@scripting -@dangerous\n",
    );
    let path = |path: &PathBuf| path.to_str().unwrap().to_owned();
    let server = services::Redis::start_tls(&path(&certificate), &path(&key), &path(&users)).await;
    let metrics = Metrics::new().unwrap();
    let secure = RedisConfig {
        username: Some("rk".to_owned()),
        password: Some("pw-8d1f".to_owned()),
        tls_ca_file: Some(certificate),
        ..config(&server.url, "tls")
    };
    assert!(!format!("{secure:?}").contains("pw-8d1f"));
    conformance(&RedisDedupe::new(&secure, &metrics).unwrap()).await;
    let wrong = RedisConfig { password: Some("pw-wrong".to_owned()), ..secure };
    let refused = RedisDedupe::new(&wrong, &metrics).unwrap().look_up(&[id("x")]).await.unwrap_err();
    assert!(matches!(refused, DedupeError::Away(_)) && !refused.to_string().contains("pw-wrong"), "{refused}");
}
