//! Names, files and the server on the network. The provider contract is tested in `tests/it`.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, UdpSocket as StdUdpSocket};
use std::path::Path;

use hickory_proto::op::{Message, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::SOA;
use hickory_proto::rr::{DNSClass, RData, Record};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use super::records::Target;
use super::*;

fn zone(config: &Config) -> Zone {
    Zone::new(config).unwrap()
}

fn config(change: impl FnOnce(&mut Config)) -> Config {
    let mut config = Config::new("/nowhere");
    change(&mut config);
    config
}

async fn started(folder: &Path) -> DnsBuiltin {
    DnsBuiltin::started(Config::new(folder)).await.unwrap()
}

fn entry(label: &str, claim: &str) -> Entry {
    let target = Target::Addresses(vec![Ipv4Addr::LOCALHOST.into(), "::1".parse().unwrap()]);
    let txt = BTreeMap::from([("@".to_owned(), vec!["hello".to_owned()])]);
    Entry { label: label.to_owned(), claim: claim.to_owned(), ttl: 60, target, txt, custom_domain: None }
}

async fn make(provider: &DnsBuiltin, entry: Entry) -> Result<Value, Failure> {
    Arc::clone(provider.service().unwrap()).ensure(entry, String::new()).await
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

/// An encoded query, changed by the test.
fn question(host: &str, kind: RecordType, change: impl FnOnce(&mut Message)) -> Vec<u8> {
    let mut message = Message::query();
    message.add_query(Query::query(name(host), kind));
    message.metadata.recursion_desired = true;
    change(&mut message);
    message.to_vec().unwrap()
}

async fn over_udp(server: SocketAddr, packet: &[u8]) -> Option<Message> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    socket.send_to(packet, server).await.unwrap();
    let mut answer = [0; 4096];
    let length =
        tokio::time::timeout(Duration::from_millis(500), socket.recv(&mut answer)).await.ok()?.unwrap();
    Some(Message::from_vec(&answer[..length]).unwrap())
}

async fn over_tcp(server: SocketAddr, packet: &[u8]) -> Message {
    let mut stream = TcpStream::connect(server).await.unwrap();
    stream.write_u16(packet.len().try_into().unwrap()).await.unwrap();
    stream.write_all(packet).await.unwrap();
    let mut answer = vec![0; stream.read_u16().await.unwrap().into()];
    stream.read_exact(&mut answer).await.unwrap();
    Message::from_vec(&answer).unwrap()
}

fn soa(message: &Message) -> &SOA {
    let records = message.answers.iter().chain(&message.authorities);
    let mut found = records.filter_map(|record| match &record.data {
        RData::SOA(soa) => Some(soa),
        _ => None,
    });
    found.next().unwrap()
}

#[test]
fn rejects_names_that_cannot_be_hosts() {
    let zone = zone(&config(|_| {}));
    for (name, label) in [
        ("acme", "acme"),
        ("ACME-2", "acme-2"),
        ("acme.tenantry.test", "acme"),
        ("tenant_01h", "tenant_01h"),
        (&"a".repeat(63), &"a".repeat(63)),
    ] {
        assert_eq!(zone.label(name).unwrap(), label);
    }
    for bad in [
        "",
        "-a",
        "a-",
        "_tenantry",
        "a.b",
        "ns",
        "NS",
        "*",
        "@",
        ".",
        "..",
        "../etc",
        "a/b",
        "a b",
        "a\0",
        "müller",
        "\u{202e}x",
        &"a".repeat(64),
        &"ä".repeat(100_000),
    ] {
        let failure = zone.label(bad).unwrap_err();
        assert_eq!((failure.code.as_str(), failure.may_retry()), ("bad_name", false), "{bad:.20}");
        assert!(failure.message.chars().count() < 500);
    }
}

#[test]
fn rejects_hosts_that_do_not_fit_below_a_long_zone() {
    let labels = |count: usize| vec!["a".repeat(61); count].join(".");
    assert!(zone(&config(|c| c.zone = format!("{}.test", labels(3)))).label("abc").is_ok());
    let long = zone(&config(|c| c.zone = format!("{}.{}", labels(3), "b".repeat(55))));
    assert_eq!(long.label("abc").unwrap_err().code, "bad_name");
    for bad in ["", "test", "a..test", "*.test", "127.0.0.1", &format!("{}.test", labels(4)), "a test.de"] {
        let failure = Zone::new(&config(|c| c.zone = bad.to_owned())).unwrap_err();
        assert_eq!(failure.code, "bad_config", "{bad}");
    }
    assert!(Zone::new(&config(|c| c.targets.clear())).is_err());
    assert!(Zone::new(&config(|c| c.nameserver = Some("ns 1".to_owned()))).is_err());
}

#[test]
fn rejects_invalid_settings() {
    let config = config(|_| {});
    let zone = zone(&config);
    let fault = |settings: Value| {
        let (kind, settings): (DnsSettings, Settings) = settings::check_both(&settings).unwrap();
        zone.entry("acme".to_owned(), "claim", &config, kind.custom_domain.as_deref(), &settings)
            .err()
            .map(|(path, _)| path)
    };
    for good in [
        json!({}),
        json!({ "targets": ["192.0.2.1", "2001:db8::1"], "ttl": 5, "txt": { "@": ["v=spf1 -all"] } }),
        json!({ "targets": ["Proxy.Example.com."], "txt": { "_dmarc": ["a", "b"] } }),
        json!({ "txt": { "_long": ["ä".repeat(512)] } }),
        json!({ "custom_domain": "shop.example.com" }),
        json!({ "custom_domain": "Müller.example" }),
    ] {
        assert_eq!(fault(good.clone()), None, "{good}");
    }
    for (path, bad) in [
        ("targets", json!({ "targets": [] })),
        ("targets", json!({ "targets": ["a.example", "b.example"] })),
        ("targets", json!({ "targets": ["a.example", "192.0.2.1"] })),
        ("targets", json!({ "targets": ["localhost"] })),
        ("targets", json!({ "targets": vec!["192.0.2.1"; 17] })),
        ("txt", json!({ "targets": ["a.example"], "txt": { "@": ["beside a CNAME"] } })),
        ("txt", json!({ "txt": { "www": ["another tenant's host"] } })),
        ("txt", json!({ "txt": { "_tenantry": ["mine"] } })),
        ("txt", json!({ "txt": { "_a.b": ["x"] } })),
        ("txt", json!({ "txt": { "_a": ["x"], "_A": ["x"] } })),
        ("txt", json!({ "txt": { "_a": [] } })),
        ("txt", json!({ "txt": { "_a": [""] } })),
        ("txt", json!({ "txt": { "_a": ["line\nline"] } })),
        ("txt", json!({ "txt": { "_a": ["x".repeat(1025)] } })),
        ("custom_domain", json!({ "custom_domain": "tenantry.test" })),
        ("custom_domain", json!({ "custom_domain": "other.tenantry.test" })),
        ("custom_domain", json!({ "custom_domain": "*.example.com" })),
        ("custom_domain", json!({ "custom_domain": "com" })),
        ("custom_domain", json!({ "custom_domain": "192.0.2.1" })),
        ("custom_domain", json!({ "custom_domain": "" })),
        ("custom_domain", json!({ "custom_domain": vec!["a".repeat(59); 4].join(".") })),
    ] {
        assert_eq!(fault(bad.clone()), Some(path), "{bad}");
    }
}

#[tokio::test]
async fn answers_for_its_records_and_refuses_other_zones() {
    let dir = tempfile::tempdir().unwrap();
    let provider = started(dir.path()).await;
    let server = provider.address().unwrap();
    make(&provider, entry("acme", "us")).await.unwrap();
    for tcp in [false, true] {
        let get = async |host: &str, kind| {
            let packet = question(host, kind, |_| {});
            if tcp { over_tcp(server, &packet).await } else { over_udp(server, &packet).await.unwrap() }
        };
        for (host, kind, code, answers) in [
            ("acme.tenantry.test.", RecordType::A, ResponseCode::NoError, 1),
            ("ACME.Tenantry.TEST.", RecordType::AAAA, ResponseCode::NoError, 1),
            ("acme.tenantry.test.", RecordType::TXT, ResponseCode::NoError, 1),
            ("acme.tenantry.test.", RecordType::MX, ResponseCode::NoError, 0),
            ("_tenantry.acme.tenantry.test.", RecordType::TXT, ResponseCode::NoError, 1),
            ("tenantry.test.", RecordType::NS, ResponseCode::NoError, 1),
            ("ns.tenantry.test.", RecordType::A, ResponseCode::NoError, 1),
            ("www.acme.tenantry.test.", RecordType::A, ResponseCode::NXDomain, 0),
            ("missing.tenantry.test.", RecordType::A, ResponseCode::NXDomain, 0),
            ("tenantry.example.", RecordType::A, ResponseCode::Refused, 0),
            ("example.com.", RecordType::A, ResponseCode::Refused, 0),
            (".", RecordType::NS, ResponseCode::Refused, 0),
        ] {
            let answer = get(host, kind).await;
            let said = (answer.metadata.response_code, answer.answers.len());
            assert_eq!(said, (code, answers), "{host} {kind} tcp={tcp}");
            assert!(!answer.metadata.recursion_available, "{host}");
            let authoritative = code != ResponseCode::Refused;
            assert_eq!(answer.metadata.authoritative, authoritative, "{host} {kind}");
            if authoritative && answers == 0 {
                assert_eq!(soa(&answer).mname, name("ns.tenantry.test."));
            }
        }
        let apex = get("tenantry.test.", RecordType::SOA).await;
        let text = (soa(&apex).mname.to_ascii(), soa(&apex).rname.to_ascii());
        assert_eq!(text, ("ns.tenantry.test.".to_owned(), "hostmaster.tenantry.test.".to_owned()));
        for refused in [RecordType::AXFR, RecordType::IXFR, RecordType::ANY] {
            let answer = get("tenantry.test.", refused).await;
            let said = (answer.metadata.response_code, answer.answers.len());
            assert_eq!(said, (ResponseCode::Refused, 0), "{refused} tcp={tcp}");
        }
    }
}

#[tokio::test]
async fn updates_and_other_classes_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let provider = started(dir.path()).await;
    let update = question("tenantry.test.", RecordType::SOA, |message| {
        message.metadata.op_code = OpCode::Update;
        let record = Record::from_rdata(
            name("evil.tenantry.test."),
            60,
            records::address_data(Ipv4Addr::LOCALHOST.into()),
        );
        message.authorities.push(record);
    });
    let chaos = question("tenantry.test.", RecordType::TXT, |message| {
        message.queries[0].set_query_class(DNSClass::CH);
    });
    let notify = question("tenantry.test.", RecordType::SOA, |m| m.metadata.op_code = OpCode::Notify);
    for packet in [update, chaos, notify] {
        let answer = over_udp(provider.address().unwrap(), &packet).await.unwrap();
        assert_eq!(answer.metadata.response_code, ResponseCode::Refused);
    }
    let evil =
        wire::ask(provider.address().unwrap(), &name("evil.tenantry.test."), RecordType::A).await.unwrap();
    assert!(evil.nothing());
}

#[tokio::test]
async fn malformed_packets_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let provider = started(dir.path()).await;
    let server = provider.address().unwrap();
    let good = question("tenantry.test.", RecordType::SOA, |_| {});
    let socket = StdUdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut random: u32 = 7;
    for round in 0..2000_usize {
        let mut packet = good.clone();
        for _ in 0..=round % 5 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let at = (random >> 8) as usize % packet.len();
            packet[at] = random.to_be_bytes()[0];
        }
        packet.truncate(packet.len() - round % packet.len());
        socket.send_to(&packet, server).unwrap();
    }
    socket.send_to(&[0; 1], server).unwrap();
    // A name that points to itself, and a length without data.
    socket.send_to(&[8, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 12, 0, 1, 0, 1], server).unwrap();
    let mut broken = TcpStream::connect(server).await.unwrap();
    broken.write_all(&[0xff, 0xff, 1, 2, 3]).await.unwrap();
    drop(broken);
    provider.probe().await.unwrap();
}

#[tokio::test]
async fn the_serial_grows_and_long_texts_arrive_over_tcp() {
    let dir = tempfile::tempdir().unwrap();
    let provider = started(dir.path()).await;
    let serial = async || {
        let packet = question("tenantry.test.", RecordType::SOA, |_| {});
        soa(&over_udp(provider.address().unwrap(), &packet).await.unwrap()).serial
    };
    let mut last = serial().await;
    let texts: Vec<String> = (0..16).map(|i| format!("{i}{}", "ü".repeat(500))).collect();
    let mut long = entry("acme", "us");
    long.txt.insert("_long".to_owned(), texts.clone());
    // Too long for UDP: the response is truncated and queried again over TCP.
    make(&provider, long).await.unwrap();
    assert!(serial().await > last);
    last = serial().await;
    let host = name("_long.acme.tenantry.test.");
    let said = wire::ask(provider.address().unwrap(), &host, RecordType::TXT).await.unwrap().data;
    assert!(texts.iter().all(|text| said.contains(&records::text_data(text))));
    let removed =
        Arc::clone(provider.service().unwrap()).remove("acme".to_owned(), "us".to_owned()).await.unwrap();
    assert_eq!(removed, 20);
    assert!(serial().await > last);
    assert!(wire::ask(provider.address().unwrap(), &host, RecordType::TXT).await.unwrap().nothing());
}

#[tokio::test]
async fn removing_a_host_keeps_hosts_with_similar_names() {
    let dir = tempfile::tempdir().unwrap();
    let provider = started(dir.path()).await;
    for label in ["a", "aa", "b", "a-a", "0"] {
        make(&provider, entry(label, label)).await.unwrap();
    }
    Arc::clone(provider.service().unwrap()).remove("a".to_owned(), "a".to_owned()).await.unwrap();
    for (label, there) in [("a", false), ("aa", true), ("b", true), ("a-a", true), ("0", true)] {
        let host = name(&format!("{label}.tenantry.test."));
        let nothing = wire::ask(provider.address().unwrap(), &host, RecordType::A).await.unwrap().nothing();
        assert_eq!(nothing, !there, "{label}");
    }
    provider.probe().await.unwrap();
}

#[tokio::test]
async fn a_restart_serves_the_stored_records() {
    let dir = tempfile::tempdir().unwrap();
    let first = started(dir.path()).await;
    let address = first.address().unwrap();
    make(&first, entry("acme", "us")).await.unwrap();
    std::fs::write(dir.path().join(".x.draft"), "half of").unwrap();
    std::fs::write(dir.path().join("bad.json"), "{").unwrap();
    std::fs::copy(dir.path().join("acme.json"), dir.path().join("copy.json")).unwrap();
    drop(first);
    // The port is free again once the server's tasks have ended.
    let config = || Config { listen: address, ..Config::new(dir.path()) };
    let mut second = DnsBuiltin::started(config()).await;
    for _ in 0..100 {
        if second.is_ok() {
            break;
        }
        sleep(POLL_INTERVAL).await;
        second = DnsBuiltin::started(config()).await;
    }
    let second = second.unwrap();
    let ask = async |host: &str| wire::ask(address, &name(host), RecordType::AAAA).await.unwrap();
    assert_eq!(ask("acme.tenantry.test.").await.data.len(), 1);
    for host in ["bad.tenantry.test.", "copy.tenantry.test."] {
        assert!(ask(host).await.nothing(), "{host}");
    }
    assert!(!dir.path().join(".x.draft").exists());
    let failure = make(&second, entry("bad", "us")).await.unwrap_err();
    assert_eq!(failure.code, "name_taken", "a damaged file has no readable owner tag");

    let taken = DnsBuiltin::started(config()).await.err().unwrap();
    assert_eq!(taken.code, "dns_listen");
    assert!(taken.may_retry() && taken.message.contains("`listen`"), "{taken}");
}

#[tokio::test]
async fn an_unusable_folder_is_a_retryable_failure() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("dns");
    let provider = started(&folder).await;
    make(&provider, entry("acme", "us")).await.unwrap();
    std::fs::rename(&folder, dir.path().join("away")).unwrap();
    std::fs::write(&folder, "").unwrap();
    for failure in [
        provider.probe().await.unwrap_err(),
        make(&provider, entry("acme", "us")).await.unwrap_err(),
        make(&provider, entry("other", "us")).await.unwrap_err(),
        DnsBuiltin::started(Config::new(&folder)).await.err().unwrap(),
    ] {
        assert_eq!((failure.code.as_str(), failure.may_retry()), ("dns_folder", true));
    }
    std::fs::remove_file(&folder).unwrap();
    std::fs::rename(dir.path().join("away"), &folder).unwrap();
    make(&provider, entry("other", "us")).await.unwrap();
}

#[tokio::test]
async fn concurrent_claims_of_one_host_have_one_winner() {
    let dir = tempfile::tempdir().unwrap();
    let provider = started(dir.path()).await;
    let (a, b) = tokio::join!(make(&provider, entry("acme", "a")), make(&provider, entry("acme", "b")));
    let lost = [&a, &b].into_iter().filter_map(|done| done.as_ref().err()).collect::<Vec<_>>();
    assert_eq!(lost.iter().map(|failure| failure.code.as_str()).collect::<Vec<_>>(), ["name_taken"]);
    let (winner, loser) = if a.is_ok() { ("a", "b") } else { ("b", "a") };
    let remove = async |claim: &str| {
        Arc::clone(provider.service().unwrap()).remove("acme".to_owned(), claim.to_owned()).await
    };
    assert_eq!(remove(loser).await.unwrap(), 0);
    assert_eq!(remove(winner).await.unwrap(), 4);
}
