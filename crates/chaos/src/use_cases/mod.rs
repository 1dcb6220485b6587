//! The use cases that customers and operators perform at once, drawn by weight.

mod access;
mod content;
mod life;
mod look;

use std::sync::Arc;
use std::time::Duration;

use crate::client::{Ask, Client, Refusal, text};
use crate::draw::Draw;
use crate::fleet::{Fleet, Tenant};
use crate::tally::Tally;

/// A use case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UseCase {
    Onboard,
    Provision,
    Offboard,
    Erase,
    Clone,
    Invite,
    Suspend,
    Resume,
    Rotate,
    ApiKey,
    WriteRows,
    WriteObject,
    Export,
    Backup,
    Restore,
    Import,
    Repair,
    Signal,
    Label,
    Status,
    Drift,
    Isolation,
    Events,
    Templates,
}

/// How often each is drawn, of the sum.
const WEIGHTS: [(UseCase, u32); 24] = [
    (UseCase::Onboard, 14),
    (UseCase::Provision, 1),
    (UseCase::Offboard, 4),
    (UseCase::Erase, 4),
    (UseCase::Clone, 2),
    (UseCase::Invite, 4),
    (UseCase::Suspend, 6),
    (UseCase::Resume, 6),
    (UseCase::Rotate, 4),
    (UseCase::ApiKey, 2),
    (UseCase::WriteRows, 12),
    (UseCase::WriteObject, 5),
    (UseCase::Export, 3),
    (UseCase::Backup, 3),
    (UseCase::Restore, 2),
    (UseCase::Import, 2),
    (UseCase::Repair, 4),
    (UseCase::Signal, 3),
    (UseCase::Label, 2),
    (UseCase::Status, 3),
    (UseCase::Drift, 1),
    (UseCase::Isolation, 1),
    (UseCase::Events, 2),
    (UseCase::Templates, 1),
];

impl UseCase {
    fn name(self) -> &'static str {
        match self {
            Self::Onboard => "onboard",
            Self::Provision => "provision",
            Self::Offboard => "offboard, reconsider",
            Self::Erase => "erase",
            Self::Clone => "clone",
            Self::Invite => "invite, accept",
            Self::Suspend => "suspend",
            Self::Resume => "resume",
            Self::Rotate => "rotate credentials",
            Self::ApiKey => "API keys",
            Self::WriteRows => "write rows",
            Self::WriteObject => "write an object",
            Self::Export => "export",
            Self::Backup => "backup",
            Self::Restore => "restore",
            Self::Import => "import",
            Self::Repair => "repair",
            Self::Signal => "pause, resume, cancel",
            Self::Label => "label",
            Self::Status => "status",
            Self::Drift => "drift",
            Self::Isolation => "isolation check",
            Self::Events => "event stream",
            Self::Templates => "templates, dry run",
        }
    }
}

/// One of those who perform use cases, one after the other.
pub struct Customer {
    /// Number of the customer.
    pub number: usize,
    pub client: Client,
    pub fleet: Arc<Fleet>,
    pub tally: Arc<Tally>,
}

impl Customer {
    /// Performs drawn use cases until `stopped`.
    pub async fn go_on(&self, mut draw: Draw, stopped: impl Fn() -> bool) {
        for count in 0.. {
            let (case, mut choices) = (draw.weighted(&WEIGHTS), draw.branch());
            let pause = draw.millis(0..300);
            if stopped() {
                return;
            }
            // No idempotency key and no marker is used twice. What differs is in the middle, so that no part of a marker in
            // base64 is part of another.
            let unique = format!("chaos{:02}x{count:05}mark", self.number);
            // A use case without a tenant that fits is not counted.
            if let Some(end) = self.perform(case, &unique, &mut choices).await {
                self.tally.use_case(case.name(), end);
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn perform(&self, case: UseCase, unique: &str, draw: &mut Draw) -> Option<Result<(), Refusal>> {
        match case {
            UseCase::Onboard => Some(self.onboard(unique, draw).await),
            UseCase::Provision => self.provision(unique, draw).await,
            UseCase::Offboard => self.offboard(unique, draw).await,
            UseCase::Erase => self.erase(unique, draw).await,
            UseCase::Clone => self.clone_tenant(unique, draw).await,
            UseCase::Invite => self.invite(unique, draw).await,
            UseCase::Suspend => self.suspend(unique, draw).await,
            UseCase::Resume => self.resume(unique, draw).await,
            UseCase::Rotate => self.rotate(unique, draw).await,
            UseCase::ApiKey => self.api_key(unique, draw).await,
            UseCase::WriteRows => self.write_rows(unique, draw).await,
            UseCase::WriteObject => self.write_object(unique, draw).await,
            UseCase::Export => self.export(unique, draw).await,
            UseCase::Backup => self.backup(unique, draw).await,
            UseCase::Restore => self.restore(unique, draw).await,
            UseCase::Import => self.import(unique, draw).await,
            UseCase::Repair => self.repair(unique, draw).await,
            UseCase::Signal => self.signal(unique, draw).await,
            UseCase::Label => self.label(unique, draw).await,
            UseCase::Status => self.status(draw).await,
            UseCase::Drift => Some(self.drift().await),
            UseCase::Isolation => self.isolation(unique, draw).await,
            UseCase::Events => Some(self.events(draw).await),
            UseCase::Templates => Some(self.templates().await),
        }
    }

    /// A tenant that may be changed in any way.
    fn any(&self, draw: &mut Draw) -> Option<Tenant> {
        self.fleet.one(draw, |_| true)
    }

    /// A tenant whose content may be replaced or deleted.
    fn loose(&self, draw: &mut Draw) -> Option<Tenant> {
        self.fleet.one(draw, |tenant| !tenant.calm)
    }

    /// A member's token: the known one, or one by a new invitation.
    async fn token(&self, tenant: &Tenant, unique: &str) -> Result<String, Refusal> {
        match tenant.token() {
            Some(token) => Ok(token.to_owned()),
            None => self.accept(tenant, unique).await,
        }
    }

    /// Invites the tenant's administrator again and accepts the invitation.
    async fn accept(&self, tenant: &Tenant, unique: &str) -> Result<String, Refusal> {
        let path = format!("/v1/tenants/{}/invitations", tenant.id);
        let invited = self.client.send(Ask::post(path, serde_json::json!({})).once(unique)).await?;
        let Some(invitation) = invited["token"].as_str() else {
            return Err(Refusal::of("the answer with the token was lost"));
        };
        self.sign_in(&tenant.marker, invitation).await
    }

    /// Accepts an invitation, and keeps the token.
    async fn sign_in(&self, marker: &str, invitation: &str) -> Result<String, Refusal> {
        let grant = serde_json::json!({ "grant_type": "invitation", "token": invitation });
        let at = std::time::Instant::now();
        let answer = self.client.send(Ask::post("/auth/token", grant).with("")).await?;
        let token = text(&answer["access_token"]);
        self.fleet.change(marker, |tenant| tenant.token = Some((token.clone(), at)));
        Ok(token)
    }
}

/// Time for which an event stream is read.
const STREAM: Duration = Duration::from_secs(2);
