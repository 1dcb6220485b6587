//! Content of tenants: rows, objects, exports, backups, restores and imports.

use reqwest::Method;
use serde_json::{Value, json};

use super::Customer;
use crate::client::{Ask, Refusal, path_of, text};
use crate::draw::Draw;
use crate::fleet::Tenant;

/// Rows that one use case writes.
const ROWS: usize = 3;

impl Customer {
    pub(super) async fn write_rows(&self, unique: &str, draw: &mut Draw) -> Option<Result<(), Refusal>> {
        let tenant = self.any(draw)?;
        Some(self.write(&tenant, unique).await)
    }

    /// Writes rows of a tenant; those that are acknowledged must stay.
    pub async fn write(&self, tenant: &Tenant, unique: &str) -> Result<(), Refusal> {
        let token = self.token(tenant, unique).await?;
        for n in 0..ROWS {
            let id = format!("{}_{unique}_{n}", tenant.marker);
            self.fleet.change(&tenant.marker, |tenant| _ = tenant.sent.insert(id.clone()));
            let row = json!({ "id": id, "name": format!("Project {id}"), "description": "" });
            if let Err(refusal) = self.client.send(Ask::post("/data/projects", row).with(&token)).await {
                // An earlier attempt may have written it, and its answer was lost.
                let read = self.client.send(Ask::get(format!("/data/projects/{id}")).with(&token)).await;
                read.map_err(|_| refusal)?;
            }
            self.fleet.change(&tenant.marker, |tenant| _ = tenant.rows.insert(id));
        }
        self.client.send(Ask::get("/data/projects?limit=20").with(&token)).await.map(drop)
    }

    pub(super) async fn write_object(&self, unique: &str, draw: &mut Draw) -> Option<Result<(), Refusal>> {
        let tenant = self.fleet.one(draw, |tenant| tenant.plan != "starter")?;
        Some(self.put(&tenant, unique).await)
    }

    /// Stores an object of a tenant and reads it.
    pub async fn put(&self, tenant: &Tenant, unique: &str) -> Result<(), Refusal> {
        let token = self.token(tenant, unique).await?;
        let key = format!("{}/{unique}", tenant.marker);
        let bytes = format!("bytes of {} ", tenant.marker).repeat(500).into_bytes();
        let sign = async |method: &str| {
            let body = json!({ "key": key, "method": method });
            let signed = self.client.send(Ask::post("/objects/urls", body).with(&token)).await?;
            Ok::<_, Refusal>(path_of(&signed["url"]))
        };
        let address = sign("PUT").await?;
        self.client.send(Ask::bytes(Method::PUT, address, bytes.clone()).with("")).await?;
        self.fleet.change(&tenant.marker, |tenant| _ = tenant.objects.insert(key.clone()));
        let (_, read) = self.client.fetch(Ask::get(sign("GET").await?).with("")).await?;
        if read != bytes {
            self.tally.surprise(format!("an object of {} has other bytes than were stored", tenant.id));
        }
        Ok(())
    }

    pub(super) async fn export(&self, unique: &str, draw: &mut Draw) -> Option<Result<(), Refusal>> {
        let tenant = self.any(draw)?;
        Some(self.export_one(&tenant, unique).await.map(drop))
    }

    /// Exports a tenant and downloads the archive.
    async fn export_one(&self, tenant: &Tenant, unique: &str) -> Result<Vec<u8>, Refusal> {
        let path = format!("/v1/tenants/{}/exports", tenant.id);
        let done = self.client.operation(Ask::post(&*path, json!({})).once(unique)).await?;
        let id = text(&done["response"]["archives"]["export"]["id"]);
        let link = self.client.send(Ask::post(format!("{path}/{id}/link"), json!({}))).await?;
        let (_, bytes) = self.client.fetch(Ask::get(path_of(&link["url"])).with("")).await?;
        self.fleet.change(&tenant.marker, |tenant| tenant.archives.push(("export", id)));
        Ok(bytes)
    }

    pub(super) async fn backup(&self, unique: &str, draw: &mut Draw) -> Option<Result<(), Refusal>> {
        let tenant = self.any(draw)?;
        Some(self.back_up(&tenant, unique).await)
    }

    async fn back_up(&self, tenant: &Tenant, unique: &str) -> Result<(), Refusal> {
        let path = format!("/v1/tenants/{}/backups", tenant.id);
        let done = self.client.operation(Ask::post(path, json!({})).once(unique)).await?;
        let id = text(&done["response"]["archives"]["backup"]["id"]);
        self.fleet.change(&tenant.marker, |tenant| tenant.archives.push(("backup", id)));
        Ok(())
    }

    pub(super) async fn restore(&self, unique: &str, draw: &mut Draw) -> Option<Result<(), Refusal>> {
        let tenant = self.fleet.one(draw, |tenant| !tenant.calm && !tenant.archives.is_empty())?;
        let (_, archive) = draw.one(&tenant.archives)?;
        let path = format!("/v1/tenants/{}/restores", tenant.id);
        let ask = Ask::post(path, json!({ "archive": archive })).once(unique);
        Some(self.client.operation(ask).await.map(drop))
    }

    /// Exports a tenant, damages the archive in every third case, and imports it again.
    pub(super) async fn import(&self, unique: &str, draw: &mut Draw) -> Option<Result<(), Refusal>> {
        let tenant = self.loose(draw)?;
        let damaged = draw.percent(33);
        Some(self.import_one(&tenant, unique, damaged).await)
    }

    async fn import_one(&self, tenant: &Tenant, unique: &str, damaged: bool) -> Result<(), Refusal> {
        let mut archive = self.export_one(tenant, unique).await?;
        if damaged {
            let middle = archive.len() / 2;
            archive[middle] ^= 1;
        }
        let path = format!("/v1/tenants/{}/imports", tenant.id);
        let ask = Ask::bytes(Method::POST, path, archive).once(format!("{unique} import"));
        match (damaged, self.client.operation(ask).await) {
            (true, Ok(_)) => {
                self.tally.surprise(format!("a damaged archive was imported into {}", tenant.id));
                Ok(())
            }
            (true, Err(refusal)) if refusal.code == "bad_archive" => Ok(()),
            (_, imported) => imported.map(drop::<Value>),
        }
    }
}
