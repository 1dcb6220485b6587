//! The authoritative name server of one zone over UDP and TCP. Answers queries for its records and refuses
//! everything else: transfers, updates, other zones, recursion. Stops when it is dropped.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use hickory_net::runtime::Time;
use hickory_proto::op::{Header, HeaderCounts, Metadata, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{NS, SOA};
use hickory_proto::rr::{DNSClass, LowerName, Name, RData, Record, RecordSet, RecordType, RrKey};
use hickory_server::Server;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::store::in_memory::InMemoryZoneHandler;
use hickory_server::zone_handler::{AxfrPolicy, Catalog, MessageResponseBuilder, ZoneHandler, ZoneType};
use tenantry_model::Failure;
use tokio::net::{TcpListener, UdpSocket};

use super::config::Config;
use super::records::{self, Zone, address_data, text_data};

/// Time without data after which a TCP connection is closed.
const TCP_IDLE_TIMEOUT: Duration = Duration::from_secs(5);
/// Responses that may be queued for a slow TCP client.
const TCP_RESPONSE_QUEUE: usize = 32;
/// Attempts to find a port that is free for both UDP and TCP.
const BIND_ATTEMPTS: usize = 16;
/// TTL of the zone's own records, in seconds.
const APEX_TTL: u32 = 3600;
/// TTL of negative responses, in seconds. Short, because the name may be created soon.
const NEGATIVE_TTL: u32 = 5;
/// Refresh, retry and expire of the SOA, in seconds. Unused, because the zone has no secondaries.
const SOA_TIMERS: (i32, i32, i32) = (3600, 600, 604_800);

/// A running server and its zone.
pub struct NameServer {
    zone: Zone,
    handler: Arc<InMemoryZoneHandler>,
    address: SocketAddr,
    /// Dropping it stops its tasks.
    _server: Server<QueryFilter>,
}

impl NameServer {
    /// Binds the port and serves the record sets.
    pub async fn start(config: &Config, zone: Zone, sets: Vec<RecordSet>) -> Result<Self, Failure> {
        let (udp, tcp) = sockets(config.listen).await.map_err(|error| {
            let why = format!(
                "builtin_dns cannot listen on {}: {error}; set `listen` to a free port",
                config.listen
            );
            Failure::retryable("dns_listen", why)
        })?;
        let address = tcp.local_addr().map_err(|error| Failure::retryable("dns_listen", error))?;
        let mut handler =
            InMemoryZoneHandler::empty(zone.origin.clone(), ZoneType::Primary, AxfrPolicy::Deny);
        let records = handler.records_get_mut();
        for set in apex(&zone, config, address)?.into_iter().chain(sets) {
            records.insert(key(&set), Arc::new(set));
        }
        let handler = Arc::new(handler);
        let mut catalog = Catalog::new();
        catalog.upsert(LowerName::new(&zone.origin), vec![Arc::clone(&handler) as Arc<dyn ZoneHandler>]);
        let mut server = Server::new(QueryFilter(catalog));
        server.register_socket(udp);
        server.register_listener(tcp, TCP_IDLE_TIMEOUT, TCP_RESPONSE_QUEUE);
        Ok(Self { zone, handler, address, _server: server })
    }

    /// The address on which the server listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The zone.
    pub fn zone(&self) -> &Zone {
        &self.zone
    }

    /// Replaces all records at and below the host with these record sets.
    pub async fn publish(&self, host: &Name, sets: Vec<RecordSet>) {
        let mut records = self.handler.records_mut().await;
        for old in keys_below(&records, host) {
            records.remove(&old);
        }
        records.extend(sets.into_iter().map(|set| (key(&set), Arc::new(set))));
        self.raise_serial(&mut records);
    }

    /// Deletes all records at and below the host if it has this owner tag; false if it does not.
    pub async fn withdraw(&self, host: &Name, mark: &str) -> Result<bool, Failure> {
        let owner = RrKey::new(LowerName::new(&records::owner(host)?), RecordType::TXT);
        let mut records = self.handler.records_mut().await;
        let wanted = text_data(mark);
        let owned = records
            .get(&owner)
            .is_some_and(|set| set.records_without_rrsigs().any(|record| record.data == wanted));
        if owned {
            for old in keys_below(&records, host) {
                records.remove(&old);
            }
            self.raise_serial(&mut records);
        }
        Ok(owned)
    }

    fn raise_serial(&self, records: &mut Records) {
        let key = RrKey::new(LowerName::new(&self.zone.origin), RecordType::SOA);
        let last = records.get(&key).and_then(|set| match &set.record()?.data {
            RData::SOA(soa) => Some(soa.serial),
            _ => None,
        });
        let serial = last.map_or(0, |last| last.wrapping_add(1)).max(seconds());
        records.insert(key, Arc::new(soa(&self.zone, serial)));
    }
}

/// The zone's record sets as the library stores them.
type Records = std::collections::BTreeMap<RrKey, Arc<RecordSet>>;

/// Keys at and below a host. They are adjacent, because names are in canonical order.
fn keys_below(records: &Records, host: &Name) -> Vec<RrKey> {
    let host = LowerName::new(host);
    let from = RrKey::new(host.clone(), RecordType::Unknown(0));
    let below = records.range(from..).map(|(key, _)| key).take_while(|key| host.zone_of(key.name()));
    below.cloned().collect()
}

fn key(set: &RecordSet) -> RrKey {
    RrKey::new(LowerName::new(set.name()), set.record_type())
}

/// Records of the zone itself: SOA, NS, and the name server's address if its name is in the zone.
fn apex(zone: &Zone, config: &Config, address: SocketAddr) -> Result<Vec<RecordSet>, Failure> {
    let record = |name: &Name, data| RecordSet::from(Record::from_rdata(name.clone(), APEX_TTL, data));
    let mut sets = vec![soa(zone, seconds()), record(&zone.origin, RData::NS(NS(zone.nameserver.clone())))];
    let public_ip = config.public_ip.or(Some(address.ip()).filter(|ip| !ip.is_unspecified()));
    if let Some(ip) = public_ip.filter(|_| zone.origin.zone_of(&zone.nameserver)) {
        sets.push(record(&zone.nameserver, address_data(ip)));
    }
    Ok(sets)
}

fn soa(zone: &Zone, serial: u32) -> RecordSet {
    let (refresh, retry, expire) = SOA_TIMERS;
    // The bare zone name stands in if `hostmaster` does not fit in front of it.
    let mailbox = zone.origin.prepend_label("hostmaster").unwrap_or_else(|_| zone.origin.clone());
    let soa = SOA::new(zone.nameserver.clone(), mailbox, serial, refresh, retry, expire, NEGATIVE_TTL);
    RecordSet::from(Record::from_rdata(zone.origin.clone(), APEX_TTL, RData::SOA(soa)))
}

/// Seconds since 1970, used as the serial so that it keeps growing after a restart.
fn seconds() -> u32 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u32::try_from(now.as_secs()).unwrap_or(u32::MAX)
}

/// Binds a UDP and a TCP socket on the same port.
async fn sockets(listen: SocketAddr) -> std::io::Result<(UdpSocket, TcpListener)> {
    let mut left = if listen.port() == 0 { BIND_ATTEMPTS } else { 1 };
    loop {
        left -= 1;
        let udp = UdpSocket::bind(listen).await?;
        match TcpListener::bind(udp.local_addr()?).await {
            Ok(tcp) => return Ok((udp, tcp)),
            Err(error) if left == 0 => return Err(error),
            Err(_) => {}
        }
    }
}

/// Refuses every request that is not a plain query and passes the rest to the catalogue.
struct QueryFilter(Catalog);

#[async_trait]
impl RequestHandler for QueryFilter {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut response: R,
    ) -> ResponseInfo {
        let plain = request.metadata.op_code == OpCode::Query
            && request.queries.queries().iter().all(|query| {
                query.query_class() == DNSClass::IN
                    && !matches!(query.query_type(), RecordType::AXFR | RecordType::IXFR | RecordType::ANY)
            });
        if plain {
            return self.0.handle_request::<R, T>(request, response).await;
        }
        let refusal = MessageResponseBuilder::from_message_request(request)
            .error_msg(&request.metadata, ResponseCode::Refused);
        let sent = response.send_response(refusal).await;
        sent.unwrap_or_else(|_| {
            let metadata = Metadata::response_from_request(&request.metadata);
            ResponseInfo::from(Header { metadata, counts: HeaderCounts::default() })
        })
    }
}
