//! What calls may have in flight, and how many of them a window of time may have: shares of a client, a key and a tenant, and
//! totals. Operators have a total of their own, which tenants cannot use up.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tenantry_control::access::Caller;
use tenantry_control::{Rate, TenantSession};
use tenantry_model::{ClientAddress, ErrorCode, TenantId, Timestamp};

use super::Metrics;
use super::call::Client;
use super::limited::{RETRY_AFTER, limited};
use super::problem::{Problem, Result};
use crate::config::Limits;
use crate::in_flight::{InFlight, Permit};

/// Window in which the calls of a client, key or tenant are counted.
const RATE_WINDOW: Duration = Duration::from_secs(10);

/// What a call is, which decides how long it lasts and what it costs meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A request with a response of bounded size.
    Requests,
    /// A stream of events.
    Streams,
    /// A request whose body is a stream of bytes.
    Uploads,
    /// A response whose body is one.
    Downloads,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Requests, Self::Streams, Self::Uploads, Self::Downloads];

    /// The kind in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Streams => "streams",
            Self::Uploads => "uploads",
            Self::Downloads => "downloads",
        }
    }

    /// The error of a client, key or tenant whose share is used up.
    fn error(self) -> ErrorCode {
        match self {
            Self::Requests => ErrorCode::TooManyRequests,
            Self::Streams => ErrorCode::TooManyStreams,
            Self::Uploads | Self::Downloads => ErrorCode::TooManyTransfers,
        }
    }
}

/// Whose shares a call counts in.
#[derive(Clone, Debug)]
pub enum Who {
    /// The server itself, which calls its endpoints in smoke tests: no limit.
    Server,
    /// A client without a credential.
    Client(ClientAddress),
    /// A tenant, by an API key or by a member's token.
    Tenant(TenantId, String),
    /// A tenant, by a signed URL.
    Signed(TenantId),
    /// An operator's key.
    Operator(String),
}

impl Who {
    /// A call without a credential. A call without a client is the server's.
    pub fn client(client: Option<Client>) -> Self {
        client.map_or(Self::Server, |Client(address)| Self::Client(address.into()))
    }

    /// A call by an API key.
    pub fn caller(client: Option<Client>, caller: &Caller) -> Self {
        match (client, caller.tenant) {
            (None, _) => Self::Server,
            (_, Some(tenant)) => Self::Tenant(tenant, caller.principal.clone()),
            (_, None) => Self::Operator(caller.principal.clone()),
        }
    }

    /// A call by a token.
    pub fn member(client: Option<Client>, session: &TenantSession) -> Self {
        client.map_or(Self::Server, |_| Self::Tenant(session.tenant, session.member.clone()))
    }
}

/// What is counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Of {
    /// One client.
    Client(ClientAddress),
    /// One key, or the tokens of one member.
    Key(String),
    /// One tenant.
    Tenant(TenantId),
    /// All of these.
    Clients,
    /// All operators.
    Operators,
}

impl Of {
    /// The share in metrics.
    fn as_str(&self) -> &'static str {
        match self {
            Self::Client(_) => "address",
            Self::Key(_) => "key",
            Self::Tenant(_) => "tenant",
            Self::Clients => "total",
            Self::Operators => "operators",
        }
    }
}

/// One call that is counted.
type Counted = Permit<(Kind, Of)>;

/// The place of a call among those in flight, until the call and its response are dropped. It changes if the call turns out
/// to be of another kind.
#[derive(Clone, Default)]
pub struct Place(Arc<Mutex<Option<Counted>>>);

impl Place {
    /// Takes another place instead.
    fn take(&self, permit: Counted) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(permit);
    }
}

/// All shares of the process.
pub struct Shares {
    limits: Limits,
    in_flight: Arc<InFlight<(Kind, Of)>>,
    rate: Rate<Of>,
    metrics: Arc<Metrics>,
}

impl Shares {
    /// Nothing in flight.
    pub fn new(limits: Limits, metrics: Arc<Metrics>) -> Self {
        Self { limits, in_flight: Arc::default(), rate: Rate::new(RATE_WINDOW), metrics }
    }

    /// Counts a call that begins, and takes its place among requests.
    pub fn begin(&self, who: &Who, place: &Place) -> Result<()> {
        let most = &self.limits.rate;
        match who {
            Who::Client(address) => self.count(Of::Client(*address), most.per_address)?,
            Who::Tenant(tenant, key) => {
                self.count(Of::Key(key.clone()), most.per_key)?;
                self.count(Of::Tenant(*tenant), most.per_tenant)?;
            }
            Who::Server | Who::Signed(_) | Who::Operator(_) => {}
        }
        self.enter(Kind::Requests, who, place)
    }

    fn count(&self, of: Of, most: u32) -> Result<()> {
        let by = of.as_str();
        self.rate.count(of, most, Timestamp::now()).map_err(|wait| {
            self.metrics.limited("rate", by);
            limited(ErrorCode::TooManyRequests, wait)
        })
    }

    /// Takes a place of this kind instead of the previous one. An error with status 429 if a share is used up, with 503 if a
    /// total is.
    pub fn enter(&self, kind: Kind, who: &Who, place: &Place) -> Result<()> {
        let most = self.limits.shares(kind);
        let mine = match who {
            Who::Server => return Ok(()),
            Who::Client(address) => vec![(Of::Client(*address), most.per_address)],
            Who::Tenant(tenant, key) => {
                vec![(Of::Key(key.clone()), most.per_key), (Of::Tenant(*tenant), most.per_tenant)]
            }
            Who::Signed(tenant) => vec![(Of::Tenant(*tenant), most.per_tenant)],
            Who::Operator(key) => vec![(Of::Key(key.clone()), most.per_operator())],
        };
        let all = match who {
            Who::Operator(_) => (Of::Operators, most.operators),
            _ => (Of::Clients, most.total),
        };
        let shares = mine.into_iter().chain([all]).map(|(of, most)| ((kind, of), most));
        let permit = self.in_flight.enter(shares.collect::<Vec<_>>());
        place.take(permit.map_err(|(_, of)| self.full(kind, &of))?);
        Ok(())
    }

    fn full(&self, kind: Kind, of: &Of) -> Problem {
        self.metrics.limited(kind.as_str(), of.as_str());
        let is_total = matches!(of, Of::Clients | Of::Operators);
        limited(if is_total { ErrorCode::Overloaded } else { kind.error() }, RETRY_AFTER)
    }

    /// Counts a credential that was rejected as a call without one. Returns `rejected`, or the error of a client that has too
    /// many of them.
    pub fn reject(&self, client: Option<Client>, rejected: Problem) -> Problem {
        let Who::Client(address) = Who::client(client) else { return rejected };
        if rejected.status != 401 {
            return rejected;
        }
        self.count(Of::Client(address), self.limits.rate.per_address).err().unwrap_or(rejected)
    }

    /// Calls of this kind in flight, of tenants' clients and of operators.
    pub fn in_flight(&self, kind: Kind) -> usize {
        [Of::Clients, Of::Operators].into_iter().map(|of| self.in_flight.count(&(kind, of))).sum()
    }
}
