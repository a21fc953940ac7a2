//! The three calls of librdkafka that crate rdkafka 0.39 has no safe form for: a topic's id, the watermarks that the
//! last fetch brought, and headers whose names may be any bytes. All unsafe code of the product is here.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::ptr;
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::client::Client;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::BorrowedMessage;
use rdkafka_sys as sys;

/// What Kafka calls the absent id (sixteen zero bytes).
const ZERO_ID: &str = "AAAAAAAAAAAAAAAAAAAAAA";

/// The topic's id as Kafka prints it (22 characters of URL-safe base 64); empty where the cluster has none.
///
/// Any broker knows it; `broker` is the one to ask, since the controller, whom librdkafka asks otherwise, is no one in the
/// embedded cluster.
///
/// # Errors
/// librdkafka's code: the deadline passed, or the topic is unknown.
pub(crate) fn topic_id<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    broker: i32,
    deadline: Duration,
) -> Result<String, RDKafkaErrorCode> {
    let name = CString::new(topic).map_err(|_| RDKafkaErrorCode::InvalidArgument)?;
    let timeout_ms = i32::try_from(deadline.as_millis()).unwrap_or(i32::MAX).max(1);
    let rk = client.native_ptr();
    let mut names = [name.as_ptr()];
    // SAFETY: `rk` lives as long as `client`. The collection copies the names, which outlive the call. Options, collection
    // and queue are destroyed below exactly once, after the last use; DescribeTopics copies what it needs of the first
    // two, and posts its one answer to the queue, which librdkafka counts references to.
    unsafe {
        let topics = sys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
        let options = sys::rd_kafka_AdminOptions_new(rk, sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
        let mut fault = [0; 256];
        sys::rd_kafka_AdminOptions_set_request_timeout(options, timeout_ms, fault.as_mut_ptr(), fault.len());
        sys::rd_kafka_AdminOptions_set_broker(options, broker, fault.as_mut_ptr(), fault.len());
        let queue = sys::rd_kafka_queue_new(rk);
        sys::rd_kafka_DescribeTopics(rk, topics, options, queue);
        // A little later than the request's own deadline, whose answer says more.
        let event = sys::rd_kafka_queue_poll(queue, timeout_ms.saturating_add(1000));
        let id = if event.is_null() { Err(RDKafkaErrorCode::OperationTimedOut) } else { id_in(event) };
        if !event.is_null() {
            sys::rd_kafka_event_destroy(event);
        }
        sys::rd_kafka_queue_destroy(queue);
        sys::rd_kafka_AdminOptions_destroy(options);
        sys::rd_kafka_TopicCollection_destroy(topics);
        id
    }
}

/// # Safety
/// `event` is a live event; what is read of it is copied before this returns.
unsafe fn id_in(event: *mut sys::rd_kafka_event_t) -> Result<String, RDKafkaErrorCode> {
    // SAFETY: the accessors take a live event of any type; a wrong type gives a null result, which is checked. Arrays are
    // read only at index 0 and only where their count is above 0.
    unsafe {
        let code: RDKafkaErrorCode = sys::rd_kafka_event_error(event).into();
        if code != RDKafkaErrorCode::NoError {
            return Err(code);
        }
        let result = sys::rd_kafka_event_DescribeTopics_result(event);
        if result.is_null() {
            return Err(RDKafkaErrorCode::Fail);
        }
        let mut count = 0;
        let topics = sys::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        if topics.is_null() || count == 0 {
            return Err(RDKafkaErrorCode::UnknownTopicOrPartition);
        }
        let topic = *topics;
        let error = sys::rd_kafka_TopicDescription_error(topic);
        let code: RDKafkaErrorCode = sys::rd_kafka_error_code(error).into();
        if code != RDKafkaErrorCode::NoError {
            return Err(code);
        }
        let id = sys::rd_kafka_TopicDescription_topic_id(topic);
        let text = if id.is_null() { ptr::null() } else { sys::rd_kafka_Uuid_base64str(id) };
        if text.is_null() {
            return Ok(String::new());
        }
        Ok(id_text(&CStr::from_ptr(text).to_string_lossy()))
    }
}

/// A topic's id as librdkafka prints it, plain base 64, in Kafka's URL-safe form; empty where the cluster has none.
pub(super) fn id_text(printed: &str) -> String {
    let text = printed.trim_end_matches('=').replace('+', "-").replace('/', "_");
    if text == ZERO_ID { String::new() } else { text }
}

/// The log's start and next offset as the last fetch of this partition brought them; `None` before the first.
pub(super) fn cached_watermarks<C: ClientContext>(
    client: &Client<C>,
    topic: &CStr,
    partition: i32,
) -> Option<(u64, u64)> {
    let (mut low, mut high) = (-1, -1);
    // SAFETY: `client` outlives the call, which only reads `topic` and writes the two numbers.
    let code: RDKafkaErrorCode = unsafe {
        sys::rd_kafka_get_watermark_offsets(client.native_ptr(), topic.as_ptr(), partition, &raw mut low, &raw mut high)
    }
    .into();
    if code != RDKafkaErrorCode::NoError {
        return None;
    }
    Some((u64::try_from(low).unwrap_or(0), u64::try_from(high).ok()?))
}

/// Calls `each` with every header in order. The crate's own way panics on a name that is not UTF-8, which any producer
/// can send.
pub(super) fn for_each_header(message: &BorrowedMessage<'_>, mut each: impl FnMut(&[u8], Option<&[u8]>)) {
    let mut headers = ptr::null_mut();
    // SAFETY: the message is alive, and its headers, names and values live as long as it does; they are only read inside
    // this call. A name is a C string by librdkafka's contract; a value that is not null has `size` bytes.
    unsafe {
        let code: RDKafkaErrorCode = sys::rd_kafka_message_headers(message.ptr(), &raw mut headers).into();
        if code != RDKafkaErrorCode::NoError || headers.is_null() {
            return;
        }
        for index in 0..sys::rd_kafka_header_cnt(headers) {
            let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
            let code: RDKafkaErrorCode =
                sys::rd_kafka_header_get_all(headers, index, &raw mut name, &raw mut value, &raw mut size).into();
            if code != RDKafkaErrorCode::NoError {
                return;
            }
            let value = (!value.is_null()).then(|| std::slice::from_raw_parts(value.cast::<u8>(), size));
            each(CStr::from_ptr(name).to_bytes(), value);
        }
    }
}
