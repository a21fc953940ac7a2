//! The reader without a cluster: what the group gives and takes, and what the lookup answers.

use std::sync::mpsc::channel;

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::RDKafkaErrorCode;

use super::*;
use crate::event::{Partition, Position};
use crate::source::kafka::config::KafkaConnection;
use crate::source::kafka::wake::wake;
use crate::source::{Assignment, Checkpoint};

/// A reader, and the ends of its channels that other threads have.
struct Bench {
    reader: Reader,
    questions: Receiver<Question>,
    answers: Sender<Answer>,
    _lists: Receiver<TopicPartitionList>,
}

impl Bench {
    fn new() -> Self {
        let connection = KafkaConnection::plaintext("127.0.0.1:1");
        let mut config = connection.client_config();
        config.set("group.id", "g").set("enable.auto.commit", "false");
        let consumer = BaseConsumer::from_config_and_context(&config, Context::new(&connection)).unwrap();
        let (questions, asked) = channel();
        let (answers, answered) = channel();
        let (committer, lists) = channel();
        let (wake, sleep) = wake();
        let reader = Reader::new(Parts {
            consumer: Arc::new(consumer),
            topics: vec!["t".to_owned()],
            group: "g".to_owned(),
            limits: BatchLimits { messages_max: 10, bytes_max: 1000, linger: Duration::ZERO },
            until_end: false,
            drain: Duration::from_secs(1),
            mailbox: Arc::new(Mailbox::new(1, wake.clone())),
            orders: Arc::new(Orders::new(wake.clone())),
            questions,
            committer,
            answers: answered,
            lags: Lags::default(),
            heartbeat: crate::telemetry::Heartbeats::new().register("reader", Duration::from_secs(30)),
            wake,
            sleep,
        });
        Self { reader, questions: asked, answers, _lists: lists }
    }

    /// What is asked about partitions next.
    fn asked(&self) -> Vec<Asked> {
        match self.questions.try_recv().unwrap() {
            Question::Assignments(asked) => asked,
            other => panic!("{other:?}"),
        }
    }

    fn answer(&mut self, answer: Answer) {
        self.answers.send(answer).unwrap();
        self.reader.serve_answers();
    }

    fn found(&mut self, asked: Vec<Asked>) {
        let found = asked.into_iter().map(|asked| {
            let assignment = assignment(&asked);
            (asked, assignment)
        });
        self.answer(Answer::Assignments(found.collect()));
    }

    /// The names of the partitions that the engine is told of next; `None` where it is told of something else.
    async fn announced(&self) -> Option<Vec<String>> {
        match self.reader.parts.mailbox.next().await.unwrap() {
            SourceEvent::Assigned(told) => Some(told.into_iter().map(|told| told.partition.name.clone()).collect()),
            _ => None,
        }
    }
}

fn assignment(asked: &Asked) -> Assignment {
    let partition = Arc::new(Partition {
        cluster: "c".to_owned(),
        topic: asked.key.0.clone(),
        topic_id: String::new(),
        epoch: 0,
        name: asked.key.1.to_string(),
    });
    Assignment { partition, number: 0, checkpoint: None, log_start: Position::Begin, log_end: Position::Begin }
}

fn key(number: i32) -> Key {
    ("t".to_owned(), number)
}

#[tokio::test]
async fn taking_one_partition_back_leaves_the_rest_of_its_assignment_looked_up() {
    let mut bench = Bench::new();
    bench.reader.hear(Note::Assign(vec![key(0), key(1), key(2)]));
    let asked = bench.asked();
    bench.reader.hear(Note::Revoke { keys: vec![key(1)], lost: false });
    let wanted: Vec<bool> = asked.iter().map(Asked::is_wanted).collect();
    assert_eq!(wanted, [true, false, true]);
    bench.found(asked);
    // All that was looked for is found: well again, then told of.
    assert_eq!(bench.announced().await, None);
    assert_eq!(bench.announced().await.unwrap(), ["0", "2"]);
}

#[tokio::test]
async fn a_partition_that_comes_back_is_not_announced_by_the_answer_to_an_earlier_question() {
    let mut bench = Bench::new();
    bench.reader.hear(Note::Assign(vec![key(0)]));
    let early = bench.asked();
    bench.reader.hear(Note::Revoke { keys: vec![key(0)], lost: true });
    bench.reader.hear(Note::Assign(vec![key(0)]));
    let late = bench.asked();
    bench.found(early);
    assert!(matches!(bench.reader.slots[&key(0)].stage, Stage::LookingUp(_)));
    bench.found(late);
    assert_eq!(bench.reader.slots[&key(0)].stage, Stage::Announced);
}

#[tokio::test]
async fn a_cluster_that_answers_is_not_well_while_a_partition_is_not_found() {
    let mut bench = Bench::new();
    bench.reader.hear(Note::Assign(vec![key(0), key(1)]));
    let mut asked = bench.asked();
    let late = asked.split_off(1);
    bench.found(asked);
    assert_eq!(bench.announced().await.unwrap(), ["0"], "not held up by the other one");
    bench.answer(Answer::Trouble("partition t/1 has no leader".to_owned()));
    bench.answer(Answer::Healthy);
    let told = bench.reader.parts.mailbox.next().await.unwrap();
    assert!(matches!(told, SourceEvent::Health { ready: false, detail } if detail.contains("t/1")));
    bench.found(late);
    let told = bench.reader.parts.mailbox.next().await.unwrap();
    assert!(matches!(told, SourceEvent::Health { ready: true, .. }), "{told:?}");
}

#[tokio::test]
async fn the_checkpoint_of_an_earlier_assignment_is_dropped() {
    let mut bench = Bench::new();
    let mut assignments = Vec::new();
    for _ in 0..3 {
        bench.reader.hear(Note::Revoke { keys: vec![key(0)], lost: true });
        bench.reader.hear(Note::Assign(vec![key(0)]));
        let asked = bench.asked();
        bench.found(asked);
        assignments.push(loop {
            if let SourceEvent::Assigned(told) = bench.reader.parts.mailbox.next().await.unwrap() {
                break told[0].clone();
            }
        });
    }
    let partition = assignments[0].partition.clone();
    let mut tell = |assignment: u64, done: u64| {
        let done = Position::Offset(done);
        bench.reader.parts.orders.done(&[Checkpoint { partition: partition.clone(), assignment, done }]);
        let (orders, _) = bench.reader.parts.orders.take();
        bench.reader.obey(orders);
        bench.reader.slots[&key(0)].commits.next()
    };
    assert_eq!(tell(assignments[1].number, 8), None);
    assert_eq!(tell(assignments[2].number, 78), Some(79));
    assert_eq!(tell(assignments[0].number, 90), Some(79));
}

#[tokio::test]
async fn a_derailed_partition_is_asked_about_anew() {
    let mut bench = Bench::new();
    bench.reader.hear(Note::Assign(vec![key(0)]));
    let asked = bench.asked();
    bench.found(asked);
    bench.reader.slots.get_mut(&key(0)).unwrap().started(5);
    let gone = KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset);
    bench.reader.fault(Some(&key(0)), &gone);
    let asked = bench.asked();
    assert!(asked[0].is_wanted());
    bench.found(asked);
    assert_eq!(bench.reader.slots[&key(0)].stage, Stage::Announced);
}
