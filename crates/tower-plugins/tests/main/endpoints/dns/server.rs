//! A name server, over UDP.

use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::support::within;

#[derive(Default)]
struct Zone {
    records: HashMap<(String, RecordType), (u32, Vec<RData>)>,
    asked: HashMap<String, usize>,
    fails: bool,
    fail: HashSet<String>,
    fail_kind: Option<(RecordType, Failure)>,
}

/// How a question stays without an answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Failure {
    Said,
    Silent,
}

/// Ends with this value.
pub(crate) struct NameServer {
    address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    asked: watch::Receiver<usize>,
    task: JoinHandle<()>,
}

impl NameServer {
    pub(crate) async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let zone = Arc::<Mutex<Zone>>::default();
        let (count, asked) = watch::channel(0);
        let answering = Arc::clone(&zone);
        let task = tokio::spawn(async move {
            let mut buffer = [0; 4096];
            loop {
                let (length, peer) = socket.recv_from(&mut buffer).await.unwrap();
                let Ok(query) = Message::from_vec(&buffer[..length]) else {
                    continue;
                };
                let answer = answering.lock().unwrap().answer(query);
                if let Some(answer) = answer {
                    let _ = socket.send_to(&answer.to_vec().unwrap(), peer).await;
                }
                count.send_modify(|asked| *asked += 1);
            }
        });
        Self {
            address,
            zone,
            asked,
            task,
        }
    }

    pub(crate) fn url(&self, target: &str) -> String {
        format!("dns://{}/{target}", self.address)
    }

    pub(crate) fn service_url(&self, service: &str) -> String {
        format!("dns+srv://{}/{service}", self.address)
    }

    fn set(&self, name: &str, kind: RecordType, ttl: u32, data: Vec<RData>) {
        let key = (format!("{name}."), kind);
        self.zone.lock().unwrap().records.insert(key, (ttl, data));
    }

    pub(crate) fn addresses(&self, name: &str, ttl: u32, addresses: &[Ipv4Addr]) {
        let data = addresses.iter().map(|ip| RData::A(A(*ip)));
        self.set(name, RecordType::A, ttl, data.collect());
    }

    pub(crate) fn address6(&self, name: &str, ttl: u32, address: Ipv6Addr) {
        self.set(
            name,
            RecordType::AAAA,
            ttl,
            vec![RData::AAAA(AAAA(address))],
        );
    }

    /// Of priority, weight, port and host.
    pub(crate) fn service(&self, name: &str, ttl: u32, targets: &[(u16, u16, u16, &str)]) {
        let data = targets.iter().map(|&(priority, weight, port, host)| {
            let host = Name::from_utf8(format!("{host}.")).unwrap();
            RData::SRV(SRV::new(priority, weight, port, host))
        });
        self.set(name, RecordType::SRV, ttl, data.collect());
    }

    pub(crate) fn forget(&self, name: &str) {
        let name = format!("{name}.");
        let mut zone = self.zone.lock().unwrap();
        zone.records.retain(|(known, _), _| *known != name);
    }

    pub(crate) fn fails(&self, fails: bool) {
        self.zone.lock().unwrap().fails = fails;
    }

    /// Whether it fails to answer questions of the name.
    pub(crate) fn fails_for(&self, name: &str, fails: bool) {
        let (name, mut zone) = (format!("{name}."), self.zone.lock().unwrap());
        if fails {
            zone.fail.insert(name);
        } else {
            zone.fail.remove(&name);
        }
    }

    /// Whether, and how, it fails to answer questions of the kind.
    pub(crate) fn fails_for_kind(&self, kind: RecordType, failure: Option<Failure>) {
        self.zone.lock().unwrap().fail_kind = failure.map(|failure| (kind, failure));
    }

    /// Waits until it was asked so many more questions.
    pub(crate) async fn asked(&self, more: usize) {
        let mut asked = self.asked.clone();
        let until = *asked.borrow() + more;
        within(asked.wait_for(|asked| *asked >= until))
            .await
            .unwrap();
    }

    /// How often it was asked of the name.
    pub(crate) fn asked_of(&self, name: &str) -> usize {
        let zone = self.zone.lock().unwrap();
        zone.asked
            .get(&format!("{name}."))
            .copied()
            .unwrap_or_default()
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Zone {
    fn answer(&mut self, query: Message) -> Option<Message> {
        let question = query.queries[0].clone();
        let name = question.name().to_utf8().to_lowercase();
        *self.asked.entry(name.clone()).or_default() += 1;
        let mut answer = query.into_response();
        let of_kind = self.fail_kind;
        let of_kind = of_kind.filter(|(kind, _)| *kind == question.query_type());
        if let Some((_, Failure::Silent)) = of_kind {
            return None;
        }
        let fails = self.fails || self.fail.contains(&name) || of_kind.is_some();
        answer.metadata.response_code = if fails {
            ResponseCode::ServFail
        } else if self.records.keys().any(|(known, _)| *known == name) {
            ResponseCode::NoError
        } else {
            ResponseCode::NXDomain
        };
        let known = self.records.get(&(name, question.query_type()));
        if let Some((ttl, data)) = known.filter(|_| !fails) {
            for data in data {
                let record = Record::from_rdata(question.name().clone(), *ttl, data.clone());
                answer.add_answer(record);
            }
        }
        Some(answer)
    }
}
