//! The events shown in the documentation, against the shipped pipeline.

use std::path::Path;
use std::sync::Arc;

use recordkeeper::config::pipelines::load;
use recordkeeper::event::{Origin, Partition, Position};
use recordkeeper::pipeline::{Delivery, Pipeline, Prepared};

#[test]
fn the_events_of_the_readme_and_of_the_publishing_guide_are_recorded() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |file: &str| std::fs::read_to_string(folder.join(file)).unwrap();
    let (readme, guide) = (read("README.md"), read("docs/publishing.md"));
    let line = readme.lines().find(|line| line.contains("|{\"specversion\"")).unwrap();
    let (key, short) = line.split_once('|').unwrap();
    let long = guide.split("```json\n").nth(1).unwrap().split("```").next().unwrap();

    let (specs, _) = load(&folder.join("pipelines"), &["wallets".to_owned()]);
    let pipeline = Pipeline::compile(&specs[0]).unwrap();
    let partition = Partition {
        cluster: "c".to_owned(),
        topic: "wallet-events".to_owned(),
        topic_id: String::new(),
        epoch: 0,
        name: "0".to_owned(),
    };
    let origin = Origin { partition: Arc::new(partition), position: Position::Offset(0) };
    for value in [short, long] {
        let delivery = Delivery {
            origin: &origin,
            timestamp_ms: None,
            key: Some(key.as_bytes()),
            value: Some(value.as_bytes()),
            headers: &[],
        };
        match pipeline.prepare(&delivery) {
            Prepared::Event(mapped) => assert_eq!(mapped.records[0].wallet_id.as_deref(), Some(key)),
            other => panic!("{other:?}: {value}"),
        }
    }
}
