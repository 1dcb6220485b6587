//! Queries a name server over the network as any client does: UDP, then TCP if the response is truncated.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_net::NetError;
use hickory_net::client::ClientHandle;
use hickory_net::runtime::TokioRuntimeProvider;
use hickory_net::tcp::TcpClientStream;
use hickory_net::udp::UdpClientStream;
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, RecordSet, RecordType};
use tenantry_model::Failure;

/// Timeout of one query, repetitions included.
const TIMEOUT: Duration = Duration::from_secs(3);
/// File in which Unix systems list their resolvers.
const RESOLV_CONF: &str = "/etc/resolv.conf";
const PORT: u16 = 53;

/// Response of a name server.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Response code.
    pub code: ResponseCode,
    /// Data of the records of the queried type, in no particular order.
    pub data: Vec<RData>,
}

impl Answer {
    /// Whether the response holds exactly the records of the set.
    pub fn is(&self, set: &RecordSet) -> bool {
        self.code == ResponseCode::NoError
            && self.data.len() == set.records_count()
            && set.records_without_rrsigs().all(|record| self.data.contains(&record.data))
    }

    /// Whether no record exists at or below the name.
    pub fn nothing(&self) -> bool {
        self.code == ResponseCode::NXDomain
    }
}

/// Sends one query. An error `dns_unreachable` if no response arrives in time.
pub async fn ask(server: SocketAddr, name: &Name, kind: RecordType) -> Result<Answer, Failure> {
    let asked = tokio::time::timeout(TIMEOUT, exchange(server, name, kind)).await;
    let failed = |why: &dyn std::fmt::Display| {
        Failure::retryable("dns_unreachable", format!("the name server {server} does not answer: {why}"))
    };
    let message = asked.map_err(|late| failed(&late))?.map_err(|error| failed(&error))?;
    let matching = message.answers.into_iter().filter(|record| record.record_type() == kind);
    Ok(Answer { code: message.metadata.response_code, data: matching.map(|record| record.data).collect() })
}

async fn exchange(server: SocketAddr, name: &Name, kind: RecordType) -> Result<Message, NetError> {
    let provider = TokioRuntimeProvider::new();
    let udp = UdpClientStream::builder(server, provider.clone()).with_timeout(Some(TIMEOUT));
    let mut udp = udp.with_os_port_selection(true).exchange();
    let answer = udp.query(name.clone(), DNSClass::IN, kind).await?;
    if !answer.metadata.truncation {
        return Ok(answer.into_message());
    }
    let mut tcp = TcpClientStream::exchange(server, None, TIMEOUT, None, provider).await?;
    Ok(tcp.query(name.clone(), DNSClass::IN, kind).await?.into_message())
}

/// The address at which a local server is reachable: the loopback address if it listens on all addresses.
pub fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => (Ipv4Addr::LOCALHOST, address.port()).into(),
        IpAddr::V6(ip) if ip.is_unspecified() => (Ipv6Addr::LOCALHOST, address.port()).into(),
        _ => address,
    }
}

/// The first resolver configured in the system.
pub async fn system_resolver() -> Result<SocketAddr, Failure> {
    let text = tokio::fs::read_to_string(RESOLV_CONF).await.unwrap_or_default();
    let found =
        text.lines().find_map(|line| line.trim().strip_prefix("nameserver")?.trim().parse::<IpAddr>().ok());
    found.map(|ip| SocketAddr::from((ip, PORT))).ok_or_else(|| {
        let why = format!("{RESOLV_CONF} lists no resolver: set `resolver` of builtin_dns");
        Failure::retryable("dns_resolver", why)
    })
}
