//! A DynamoDB server over HTTP, in memory, on a thread of its own: it outlives the runtime of the test that asks first.

use std::sync::mpsc::channel;

use tokio::sync::OnceCell;

static DYNAMODB: OnceCell<String> = OnceCell::const_new();

/// Its endpoint.
pub async fn dynamodb() -> &'static str {
    DYNAMODB.get_or_init(|| async { start() }).await
}

fn start() -> String {
    let (started, starting) = channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let server = recordkeeper::embedded::dynamodb::start(None).await.unwrap();
            started.send(server.endpoint.clone()).unwrap();
            std::future::pending::<()>().await;
            drop(server);
        });
    });
    starting.recv().expect("the server starts")
}
