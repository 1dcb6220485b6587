//! What is tested: two replicas of the server on three databases of their own, behind gates, with their shared folders on a
//! small disk where one can be mounted.

use std::fs::Permissions;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;
use tenantry_testkit::TestDatabase;
use tenantry_testkit::gate::Gate;
use tenantry_testkit::small_disk::SmallDisk;

use crate::replica::Replica;

/// Size of the disk of the shared folders, in megabytes.
const DISK: u32 = 192;
/// Time in which the first server starts.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Name that this program's own sessions have in `pg_stat_activity`.
pub const OWN_SESSIONS: &str = "chaos";
/// The servers' URL in links, which leads to no server: clients take the path only.
pub const PUBLIC_URL: &str = "http://chaos.test";
/// Slots by kind that the templates can reserve.
pub const CAPACITY: u32 = 2_000;

/// The installation. Dropping it kills the servers and deletes everything.
pub struct Installation {
    pub replicas: [Replica; 2],
    /// In front of the registry and the keyring of each replica, and of the tenants' databases of both.
    pub gates: [Gate; 3],
    /// None where no file system can be mounted.
    pub disk: Option<SmallDisk>,
    /// URLs of registry, keyring and tenants' main database, past the gates.
    pub registry: String,
    pub keyring: String,
    pub tenants: String,
    folder: TempDir,
    // Dropped last: the servers use them.
    _databases: [TestDatabase; 3],
}

impl Installation {
    /// Creates the databases on the server of this administrator's URL, and starts the replicas.
    pub async fn start(admin: &str) -> Result<Self> {
        let databases =
            [TestDatabase::on(admin).await, TestDatabase::on(admin).await, TestDatabase::on(admin).await];
        let [registry, keyring, tenants] = [0, 1, 2].map(|n| databases[n].url().to_owned());
        let gates = [Gate::new(admin), Gate::new(admin), Gate::new(admin)];
        let (folder, disk) = (tempfile::tempdir()?, SmallDisk::new(DISK));
        let shared =
            disk.as_ref().map_or_else(|| folder.path().join("shared"), |disk| disk.path().join("shared"));
        std::fs::create_dir_all(&shared)?;
        let master = folder.path().join("master.key");
        std::fs::write(&master, rand::random::<[u8; 32]>())?;
        std::fs::set_permissions(master, Permissions::from_mode(0o600))?;
        let mut replicas = Vec::new();
        for (name, gate) in [("first", &gates[0]), ("second", &gates[1])] {
            let data = folder.path().join(name);
            std::fs::create_dir_all(&data)?;
            let urls = [gate.url(&registry), gate.url(&keyring), gates[2].url(&tenants)];
            // Free now; a killed server takes it again.
            let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
            let config = config(folder.path(), (&data, address), &shared, &urls, &databases[2].app_role());
            std::fs::write(data.with_extension("toml"), config)?;
            let log = folder.path().join(format!("{name}.log"));
            replicas.push(Replica::start(data, format!("http://{address}"), log.clone())?);
            // The first one creates the administrator's key, which both use.
            until_exists(&folder.path().join("admin.key"), &log).await?;
        }
        let replicas = <[Replica; 2]>::try_from(replicas).ok().context("two replicas")?;
        Ok(Self { replicas, gates, disk, registry, keyring, tenants, folder, _databases: databases })
    }

    /// The administrator's API key.
    pub fn key(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.folder.path().join("admin.key"))?.trim().to_owned())
    }

    /// The folder with the data of all parts that have files.
    pub fn shared(&self) -> PathBuf {
        let parent = self.disk.as_ref().map_or(self.folder.path(), |disk| disk.path());
        parent.join("shared")
    }

    /// The configuration of the first replica.
    pub fn config(&self) -> PathBuf {
        self.folder.path().join("first.toml")
    }

    /// Keeps the folder with configuration and logs after the end, and returns it.
    pub fn keep_logs(&mut self) -> PathBuf {
        self.folder.disable_cleanup(true);
        self.folder.path().to_owned()
    }
}

/// A database's URL for this program's own sessions.
pub fn own(url: &str) -> String {
    format!("{url}?application_name={OWN_SESSIONS}")
}

/// Waits until the first server has written its key.
async fn until_exists(file: &Path, log: &Path) -> Result<()> {
    let started = Instant::now();
    // Written at once, so a file with content is complete.
    while !std::fs::metadata(file).is_ok_and(|file| file.len() > 0) {
        if started.elapsed() > TIMEOUT {
            bail!("the first server does not start:\n{}", std::fs::read_to_string(log).unwrap_or_default());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

fn config(
    folder: &Path,
    (data, address): (&Path, SocketAddr),
    shared: &Path,
    urls: &[String; 3],
    app_role: &str,
) -> String {
    let [registry, keyring, tenants] = urls;
    let (folder, data, shared) = (folder.display(), data.display(), shared.display());
    format!(
        "listen = '{address}'\npublic_url = '{PUBLIC_URL}'\ndata_dir = '{data}'\n\
         admin_key_file = '{folder}/admin.key'\narchives_dir = '{shared}/archives'\n\
         [capacity.local]\ndatabase = {CAPACITY}\nbucket = {CAPACITY}\nnamespace = {CAPACITY}\n\
         [store]\nurl = '{registry}'\n[keyring]\nurl = '{keyring}'\nmaster_key_file = '{folder}/master.key'\n\
         [providers.postgres]\nurl = '{tenants}'\napp_role = '{app_role}'\nconnections = 12\nconnection_limit = 8\n\
         warm_schemas = 1\nwarm_databases = 1\n\
         [providers.folder_bucket]\nfolder = '{shared}/buckets'\n[providers.outbox]\nfolder = '{shared}/outbox'\n\
         [providers.manifests]\nfolder = '{shared}/manifests'\n[providers.builtin_dns]\nfolder = '{shared}/dns'\n\
         [providers.local_ca]\nfolder = '{shared}/certificates'\n"
    )
}
