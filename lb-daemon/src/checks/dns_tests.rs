//! The DNS probe against servers that answer, err, lie and cut short.

use std::sync::Arc;

use hickory_proto::rr::rdata::{A, CNAME, MX, TXT};
use lb_core::config::model::CheckKind;
use tokio::net::{TcpListener, UdpSocket};

use super::super::test_server::{AMPLE, SHORT, probed};
use super::*;

fn check(record: &str, expect: &[&str]) -> CheckKind {
    let expect = expect.iter().map(|text| (*text).to_owned()).collect();
    CheckKind::Dns { name: "www.example.org".into(), record: record.into(), expect }
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

/// The answer to `query` with all kinds of records.
fn answer(query: &Message) -> Message {
    let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
    answer.add_queries(query.queries.clone());
    let www = name("www.example.org.");
    for data in [
        RData::CNAME(CNAME(name("Real.example.org."))),
        RData::A(A::new(192, 0, 2, 1)),
        RData::A(A::new(192, 0, 2, 2)),
        RData::MX(MX::new(10, name("mail.example.org."))),
        RData::TXT(TXT::new(vec!["v=spf1 -all".to_owned()])),
    ] {
        answer.add_answer(Record::from_rdata(www.clone(), 60, data));
    }
    answer
}

/// A server whose answers to each question, by UDP and by TCP, are what the functions make of it.
async fn server(
    by_udp: impl Fn(&Message) -> Vec<Vec<u8>> + Send + 'static,
    by_tcp: impl Fn(&Message) -> Vec<u8> + Send + Sync + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let socket = UdpSocket::bind(address).await.unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
            for answer in by_udp(&Message::from_vec(&buffer[..length]).unwrap()) {
                socket.send_to(&answer, client).await.unwrap();
            }
        }
    });
    let by_tcp = Arc::new(by_tcp);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let length = stream.read_u16().await.unwrap();
            let mut query = vec![0; usize::from(length)];
            stream.read_exact(&mut query).await.unwrap();
            let answer = by_tcp(&Message::from_vec(&query).unwrap());
            stream.write_all(&u16::try_from(answer.len()).unwrap().to_be_bytes()).await.unwrap();
            stream.write_all(&answer).await.unwrap();
        }
    });
    address
}

fn bytes(message: &Message) -> Vec<u8> {
    message.to_vec().unwrap()
}

async fn good() -> SocketAddr {
    server(|query| vec![bytes(&answer(query))], |_| Vec::new()).await
}

#[tokio::test]
async fn what_is_expected_must_be_among_the_answers() {
    let address = good().await;
    let table: [(_, &[&str], Option<&str>); 10] = [
        ("A", &[], None),
        ("a", &["192.0.2.2", "192.0.2.1"], None),
        ("A", &["real.example.org"], None),
        ("A", &["REAL.example.org."], None),
        ("MX", &["10 mail.example.org"], None),
        ("MX", &["mail.example.org."], None),
        ("TXT", &["v=spf1 -all"], None),
        ("A", &["192.0.2.1", "192.0.2.9"], Some("www.example.org A: answers lack 192.0.2.9: got ")),
        ("MX", &["20 mail.example.org"], Some("www.example.org MX: answers lack 20 mail.example.org: got ")),
        ("TXT", &["v=spf1"], Some("www.example.org TXT: answers lack v=spf1: got ")),
    ];
    for (record, expect, reason) in table {
        let outcome = probed(address, check(record, expect), AMPLE).await;
        assert_eq!(outcome.passed, reason.is_none(), "{record} {expect:?}: {outcome:?}");
        assert!(outcome.reason.starts_with(reason.unwrap_or("5 answers in ")), "{outcome:?}");
    }
}

#[tokio::test]
async fn errors_are_in_words() {
    let table = [
        (ResponseCode::NXDomain, "there is no such name (NXDOMAIN)"),
        (ResponseCode::ServFail, "the server failed (SERVFAIL)"),
        (ResponseCode::Refused, "the server refused (REFUSED)"),
    ];
    for (code, words) in table {
        let address = server(
            move |query| vec![bytes(&Message::error_msg(query.metadata.id, query.metadata.op_code, code))],
            |_| Vec::new(),
        )
        .await;
        let outcome = probed(address, check("A", &[]), AMPLE).await;
        assert_eq!(outcome, Outcome::failed(format!("www.example.org A: {words}")));
    }
}

#[tokio::test]
async fn an_answer_that_is_not_to_the_question_does_not_count() {
    let other_id = |query: &Message| {
        let mut other = answer(query);
        other.metadata.id = query.metadata.id.wrapping_add(1);
        bytes(&other)
    };
    let other_name = |query: &Message| {
        let mut other = answer(query);
        other.queries[0].set_name(name("www.example.com."));
        bytes(&other)
    };
    type Lie = fn(&Message) -> Vec<u8>;
    let table: [(Lie, _); 4] = [
        (other_id, "the answer has a wrong identifier"),
        (other_name, "the answer is to another question"),
        (|query| bytes(query), "the answer is no response"),
        (|_| b"nonsense".to_vec(), "the answer is not DNS"),
    ];
    for (lie, words) in table {
        let address = server(move |query| vec![lie(query)], |_| Vec::new()).await;
        let outcome = probed(address, check("A", &[]), SHORT).await;
        assert_eq!(outcome, Outcome::failed(format!("www.example.org A: {words}")));
        // The true answer after it does.
        let address = server(move |query| vec![lie(query), bytes(&answer(query))], |_| Vec::new()).await;
        assert!(probed(address, check("A", &["192.0.2.1"]), AMPLE).await.passed);
    }
}

#[tokio::test]
async fn an_answer_that_was_cut_short_is_asked_for_again_by_tcp() {
    let cut = |query: &Message| {
        let mut cut = answer(query).truncate();
        cut.metadata.truncation = true;
        vec![bytes(&cut)]
    };
    let address = server(cut, |query| bytes(&answer(query))).await;
    let outcome = probed(address, check("A", &["192.0.2.2"]), AMPLE).await;
    assert!(outcome.passed, "{outcome:?}");
    let address = server(cut, |_| b"nonsense".to_vec()).await;
    let outcome = probed(address, check("A", &[]), AMPLE).await;
    assert_eq!(outcome, Outcome::failed("www.example.org A by TCP: the answer is not DNS"));
}

#[tokio::test]
async fn silence_and_a_closed_port_are_down() {
    let address = server(|_| Vec::new(), |_| Vec::new()).await;
    let outcome = probed(address, check("A", &[]), SHORT).await;
    assert_eq!(outcome, Outcome::failed("www.example.org A: no answer within 400ms"));
    let closed = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let outcome = probed(closed, check("A", &[]), AMPLE).await;
    assert_eq!(outcome, Outcome::failed("www.example.org A: port unreachable"));
}

#[tokio::test]
async fn an_answer_from_elsewhere_does_not_count() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let elsewhere = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        let (length, client) = socket.recv_from(&mut buffer).await.unwrap();
        let query = Message::from_vec(&buffer[..length]).unwrap();
        elsewhere.send_to(&bytes(&answer(&query)), client).await.unwrap();
        std::future::pending::<()>().await;
    });
    let outcome = probed(address, check("A", &[]), SHORT).await;
    assert_eq!(outcome, Outcome::failed("www.example.org A: no answer within 400ms"));
}

#[tokio::test]
async fn what_cannot_be_asked_is_no_failure_of_the_backend() {
    let address = good().await;
    for (name, record) in [("www.example.org", "NONSENSE"), ("a..b", "A")] {
        let question = Question { name, record, expect: &[] };
        assert!(probe(address, &Check::tcp(), question).await.is_err(), "{name} {record}");
    }
}
