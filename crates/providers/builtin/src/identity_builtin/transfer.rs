//! Exports and imports a tenant's members as the table `members`, with names and addresses in clear text and
//! without secrets. Import invites every person that is not a member yet, because passwords are not exported.

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Value, json};
use tenantry_model::id::{InvitationId, UserId};
use tenantry_model::member::{self, EMAIL_MAC, normal_email};
use tenantry_model::{Failure, Write, columns};
use tokio::io::BufReader;

use super::{DAY, INVITATION_TOKEN, IdentityBuiltin, fingerprint, members, token};
use tenantry_provider::csv::{self, Field};
use tenantry_provider::derived;
use tenantry_provider::transfer::{Content, Sink, Source, Tally, Transfer, bad_archive};
use tenantry_provider::verbs::{Context, Spec};

const TABLE: &str = "members";
const COLUMNS: [&str; 7] = ["id", "email", "first_name", "last_name", "role", "state", "created_at"];

#[derive(Default, Deserialize)]
struct SealedPerson {
    email: String,
    first_name: Option<String>,
    last_name: Option<String>,
}

#[async_trait]
impl Transfer for IdentityBuiltin {
    fn form(&self) -> &'static str {
        "members"
    }

    async fn export(&self, context: &Context, spec: &Spec, sink: &mut dyn Sink) -> Result<Content, Failure> {
        let (members, _) = members(context, spec).await?;
        let mut tally = Tally::default();
        let mut table = csv::Table::new(sink, &mut tally, TABLE, COLUMNS);
        for row in &members {
            let text = |column: &str| row.get(column).and_then(Value::as_str);
            let clear = context.sealer.open(spec.tenant.id, text("sealed").unwrap_or_default())?;
            // The parser's error is dropped: it may quote personal data.
            let person: SealedPerson = serde_json::from_str(&clear).map_err(|_| {
                Failure::fatal(
                    "bad_ledger",
                    "a member's sealed record cannot be parsed; restore the registry from a backup",
                )
            })?;
            let SealedPerson { email, first_name, last_name } = &person;
            let (first, last) = (first_name.as_deref(), last_name.as_deref());
            let line = csv::line([
                text("id"),
                Some(email.as_str()),
                first,
                last,
                text("role"),
                text("state"),
                text("created_at"),
            ]);
            // Ids, states and times differ after an import, so they are not part of the content's digest.
            let content = csv::line([Some(&*normal_email(email)), first, last, text("role")]);
            table.row_of(&line, &[&content]).await?;
        }
        table.end().await?;
        Ok(tally.content())
    }

    async fn load(
        &self,
        context: &Context,
        spec: &Spec,
        source: &mut dyn Source,
    ) -> Result<Vec<Write>, Failure> {
        let (there, _) = members(context, spec).await?;
        let mut known: BTreeSet<String> =
            there.iter().filter_map(|row| row.get("email_mac")?.as_str().map(str::to_owned)).collect();
        let mut writes = Vec::new();
        while let Some(file) = source.next().await? {
            let mut bytes = BufReader::new(file.bytes);
            if csv::table_of(&file.path)? != TABLE || csv::header(&mut bytes).await? != COLUMNS {
                return Err(bad_archive(format!(
                    "the archive's members must be in the table `{TABLE}` with the columns {}",
                    COLUMNS.join(", ")
                )));
            }
            while let Some(row) = csv::read(&mut bytes).await? {
                let bad = || bad_archive(format!("the table `{TABLE}` has a row that is not a member"));
                let row: Vec<Option<String>> = row.into_iter().map(Field::text).collect();
                let [_, Some(email), first_name, last_name, Some(role), Some(_), Some(_)] =
                    <[Option<String>; 7]>::try_from(row).map_err(|_| bad())?
                else {
                    return Err(bad());
                };
                let normal = normal_email(&email);
                if normal.is_empty() || member::find(&role).is_none() {
                    return Err(bad());
                }
                let mac = context.sealer.mac(EMAIL_MAC, &normal);
                if !known.insert(mac.clone()) {
                    continue;
                }
                let person = json!({ "email": email, "first_name": first_name, "last_name": last_name });
                writes.extend(self.invite(context, spec, &mac, &person, &role)?);
            }
        }
        Ok(writes)
    }
}

impl IdentityBuiltin {
    /// Rows of a new member, the invitation, and its token as a credential of the operation. Repeated calls
    /// for the same person give rows with the same ids.
    fn invite(
        &self,
        context: &Context,
        spec: &Spec,
        mac: &str,
        person: &Value,
        role: &str,
    ) -> Result<[Write; 3], Failure> {
        let tenant = spec.tenant.id;
        let member: UserId = derived::id(spec.resource, spec.generation, mac);
        let invitation: InvitationId = derived::id(spec.resource, spec.generation, mac);
        let secret = token();
        let lifetime = Duration::from_secs(DAY * u64::from(self.config.invitation_days));
        Ok([
            Write::insert_absent(
                "members",
                columns! {
                "id": member, "tenant_id": tenant, "resource_id": spec.resource, "email_mac": mac,
                "sealed": context.sealer.seal(tenant, &person.to_string())?, "role": role, "state": "invited",
                "password_hash": (), "must_change_password": false, "created_at": context.now },
            ),
            Write::insert_absent(
                "invitations",
                columns! {
                "id": invitation, "tenant_id": tenant, "member_id": member, "token_hash": fingerprint(&secret),
                "role": role, "expires_at": context.now + lifetime, "accepted_at": (), "created_at": context.now },
            ),
            Write::insert_absent(
                "credentials",
                columns! {
                "operation_id": spec.operation, "name": format!("{INVITATION_TOKEN}:{member}"), "tenant_id": tenant,
                "sealed": context.sealer.seal(tenant, &secret)?, "created_at": context.now, "claimed_at": () },
            ),
        ])
    }
}
