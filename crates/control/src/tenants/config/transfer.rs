//! Exports a tenant's flags and settings as one JSON document, `config.json`, and imports the settings. Flags and quotas
//! are exported but not imported: they come from the tenant's own plan and template.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tenantry_model::{Failure, Write, columns};
use tenantry_provider::transfer::{Content, Sink, Source, Tally, Transfer, bad_archive, broken};
use tenantry_provider::verbs::{Context, Spec};
use tenantry_store::entity::config::Model;
use tokio::io::AsyncReadExt as _;

use super::{ConfigBuiltin, QUOTAS, has_controls, map, row};

const FILE: &str = "config.json";
/// Name of the imported part in counts and digests.
const SET: &str = "settings";
/// Largest document that is imported, in bytes.
const MAX_BYTES: u64 = 1 << 20;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    flags: Map<String, Value>,
    settings: Map<String, Value>,
}

#[async_trait]
impl Transfer for ConfigBuiltin {
    fn form(&self) -> &'static str {
        "config"
    }

    async fn export(&self, context: &Context, spec: &Spec, sink: &mut dyn Sink) -> Result<Content, Failure> {
        let row = config_row(context, spec).await?;
        let document = Document { flags: map(row.flags), settings: map(row.settings) };
        let mut tally = Tally::default();
        tally.open(SET);
        for (key, value) in document.settings.iter().filter(|(key, _)| *key != QUOTAS) {
            tally.add(SET, &[key.as_bytes(), value.to_string().as_bytes()]);
        }
        let text = json!(document).to_string();
        sink.file(FILE, text.len() as u64, &mut text.as_bytes()).await?;
        Ok(tally.content())
    }

    async fn load(
        &self,
        context: &Context,
        spec: &Spec,
        source: &mut dyn Source,
    ) -> Result<Vec<Write>, Failure> {
        let row = config_row(context, spec).await?;
        let Some(file) = source.next().await?.filter(|file| file.path == FILE && file.size <= MAX_BYTES)
        else {
            return Err(bad_archive(format!(
                "the archive must contain `{FILE}` of at most {MAX_BYTES} bytes"
            )));
        };
        let mut text = Vec::new();
        file.bytes.take(MAX_BYTES).read_to_end(&mut text).await.map_err(|error| broken(&error))?;
        let read = serde_json::from_slice(&text);
        let mut document: Document = read.map_err(|why| bad_archive(format!("`{FILE}`: {why}")))?;
        document.settings.remove(QUOTAS);
        // As in a request. Settings of several sources together may be longer than those of one request.
        if document.settings.iter().any(|(name, value)| has_controls(&json!(name)) || has_controls(value)) {
            return Err(bad_archive(format!("`{FILE}`: settings must not contain control characters")));
        }
        let quotas = map(row.settings).remove(QUOTAS);
        document.settings.extend(quotas.map(|quotas| (QUOTAS.to_owned(), quotas)));
        let set = columns! { "settings": document.settings, "updated_at": context.now };
        Ok(vec![Write::update("configs", columns! { "tenant_id": spec.tenant.id }, set)])
    }
}

async fn config_row(context: &Context, spec: &Spec) -> Result<Model, Failure> {
    let row = row(context, spec).await?.filter(|(_, own)| *own).map(|(row, _)| row);
    row.ok_or_else(|| {
        Failure::invalid("no_such_tenant", "the tenant has no settings; repair the tenant first")
    })
}
