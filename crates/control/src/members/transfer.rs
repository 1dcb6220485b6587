//! Exports and imports a tenant's members as the table `members`, with names and addresses in clear text and
//! without secrets. Import invites every person that is not a member yet, because passwords are not exported; it accepts
//! what a sign-up accepts, and no more members than the tenant has seats.

use std::collections::BTreeSet;

use async_trait::async_trait;
use tenantry_model::member::{self, EMAIL_MAC, normal_email};
use tenantry_model::text::{is_email, is_person_name};
use tenantry_model::{Failure, Write};
use tenantry_provider::csv::{self, Field};
use tenantry_provider::kinds::identity::{FirstAdmin, INVITATION_TOKEN};
use tenantry_provider::transfer::{Content, Sink, Source, Tally, Transfer, bad_archive};
use tenantry_provider::verbs::{Context, Spec};
use tenantry_store::entity::config;
use tenantry_store::rows_of;
use tokio::io::BufReader;

use super::provider::IdentityBuiltin;
use super::rows::{Ids, Members, NewMember, SealedPerson};

const TABLE: &str = "members";
const COLUMNS: [&str; 7] = ["id", "email", "first_name", "last_name", "role", "state", "created_at"];

#[async_trait]
impl Transfer for IdentityBuiltin {
    fn form(&self) -> &'static str {
        "members"
    }

    async fn export(&self, context: &Context, spec: &Spec, sink: &mut dyn Sink) -> Result<Content, Failure> {
        let mut tally = Tally::default();
        let mut table = csv::Table::new(sink, &mut tally, TABLE, COLUMNS);
        for row in Members::read(context, spec).await?.rows {
            let clear = context.sealer.open(spec.tenant.id, &row.sealed)?;
            // The parser's error is dropped: it may quote personal data.
            let person: SealedPerson = serde_json::from_str(&clear).map_err(|_| {
                Failure::fatal(
                    "bad_ledger",
                    "a member's sealed record cannot be parsed; restore the registry from a backup",
                )
            })?;
            let (email, role) = (person.email.as_str(), Some(row.role.as_str()));
            let (first, last) = (person.first_name.as_deref(), person.last_name.as_deref());
            let (state, created_at) = (Some(row.state.as_str()), row.created_at.to_string());
            let line = csv::line([Some(&*row.id), Some(email), first, last, role, state, Some(&created_at)]);
            // Ids, states and times differ after an import, so they are not part of the content's digest.
            let content = csv::line([Some(&*normal_email(email)), first, last, role]);
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
        let members = Members::read(context, spec).await?;
        let mut known: BTreeSet<String> = members.rows.into_iter().map(|row| row.email_mac).collect();
        let seats = seats(context, spec).await?;
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
                let named = [&first_name, &last_name].into_iter().flatten().all(|name| is_person_name(name));
                if !named || !is_email(&email) || member::find(&role).is_none() {
                    return Err(bad());
                }
                let mac = context.sealer.mac(EMAIL_MAC, &normal_email(&email));
                if !known.insert(mac.clone()) {
                    continue;
                }
                if seats.is_some_and(|seats| known.len() as u64 > seats) {
                    let message = "the archive has more members than the tenant has seats: import it into a tenant whose plan has more";
                    return Err(Failure::invalid("quota_exceeded", message));
                }
                let ids = Ids::of(spec, &mac);
                let secret_name = format!("{INVITATION_TOKEN}:{}", ids.member);
                let new = NewMember {
                    ids,
                    person: &SealedPerson { email, first_name, last_name },
                    role: &role,
                    first: FirstAdmin::Invitation,
                    invitation_lifetime: self.invitation_lifetime(),
                    secret_name: &secret_name,
                };
                writes.extend(new.writes(context, spec, false)?);
            }
        }
        Ok(writes)
    }
}

/// Number of members that the tenant may have; none if its plan does not limit them.
async fn seats(context: &Context, spec: &Spec) -> Result<Option<u64>, Failure> {
    let config: Option<config::Model> = rows_of(&*context.rows, spec.tenant.id).await?.pop();
    Ok(config.and_then(|row| row.settings.pointer("/quotas/seats")?.as_u64()))
}
