//! A server process from start to end: lock, registry, admin key, listener; and the end in order, within 15 seconds of
//! SIGTERM.

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tenantry_control::{Control, ControlConfig, Parts};
use tenantry_engine::ExecutorConfig;
use tenantry_store::keyring::{Keyring, MasterKey};
use tenantry_store::{AUDIT_KEY, AuditReport, Store, StoreConfig};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::api::{self, App, Metrics};
use crate::cli::Exit;
use crate::config::{self, Config};
use crate::front::InProcess;
use crate::lock::Lock;
use crate::serve::serve;

/// How long running attempts may take to end. With the drain before it, less than 15 seconds.
const GRACE: Duration = Duration::from_secs(6);
/// How long the use cases may take to stop altogether; what they leave is finished by the next process.
const STOP: Duration = Duration::from_secs(8);

/// Runs a server until it is told to end. `started` is called with its URL once it serves.
pub async fn run(config: Config, started: impl FnOnce(&str)) -> Result<()> {
    survive_a_full_disk()?;
    let mut lock = open_data_folder(&config.data_dir)?;
    let address: SocketAddr = config.listen.parse().context("listen")?;
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    let url = config.url(listener.local_addr()?);
    let metrics = Arc::new(Metrics::new());
    let control = start(&config, &url, metrics.clone()).await?;
    adopt_admin_key(&control, &config.admin_key()).await?;
    let draining = CancellationToken::new();
    let router = api::router(App::new(control.clone(), metrics, draining.clone()));
    control.set_front(Arc::new(InProcess(router.clone())));
    let stopped = CancellationToken::new();
    let serving = tokio::spawn(serve(listener, router, stopped.clone()));
    lock.announce(&url)?;
    tracing::info!(url, "serving");
    started(&url);

    tokio::select! {
        asked = end_asked() => asked?,
        never = control.run_background_tasks() => match never {},
    }
    tracing::info!("ending");
    draining.cancel();
    tokio::time::sleep(Duration::from_millis(config.shutdown.delay_ms)).await;
    stopped.cancel();
    // A panic of the listener is no reason not to stop the rest.
    let _ = serving.await;
    if tokio::time::timeout(STOP, control.stop()).await.is_err() {
        tracing::warn!("some operations were cut off; the next process goes on with them");
    }
    tracing::info!("ended");
    Ok(())
}

/// The use cases over what the configuration names.
async fn start(config: &Config, url: &str, metrics: Arc<Metrics>) -> Result<Control> {
    let providers = config::build(config, url).await?;
    let mut parts = Parts::new(master_key(config)?, providers);
    parts.meter = Some(metrics);
    Control::start(control_config(config, url)?, parts).await.map_err(explain)
}

/// What the use cases are told.
fn control_config(config: &Config, url: &str) -> Result<ControlConfig> {
    let catalogue =
        config.files.catalogue.as_deref().map(|file| {
            std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
        });
    Ok(ControlConfig {
        store: store_config(config),
        keyring_url: config.keyring_url(),
        templates: config.files.templates.clone(),
        catalogue: catalogue.transpose()?,
        region: config.region.clone(),
        locale: config.locale.clone(),
        capacity: config.capacity.clone(),
        regions: config.regions.clone(),
        at_once: config.executor.at_once.clone(),
        public_url: url.to_owned(),
        isolation_every: Some(config.isolation.every.duration()).filter(|every| !every.is_zero()),
        archives: config.archives(),
        import_most: config.import_max_bytes,
        executor: ExecutorConfig { max_active: config.executor.max_active, grace: GRACE },
        replicas: !config.store_url().starts_with("sqlite:"),
    })
}

/// What every tenant's key is wrapped by.
pub fn master_key(config: &Config) -> Result<MasterKey> {
    let (file, create) = config.master_key();
    Ok(if create { MasterKey::read_or_create(&file) } else { MasterKey::read(&file) }?)
}

/// An error for the terminal, with its cause and every faulty field.
pub fn explain(error: tenantry_control::Error) -> anyhow::Error {
    let mut text = error.message.clone();
    for fault in &error.errors {
        text.push_str(&format!("\n  {}: {}", fault.path, fault.message));
    }
    match error.cause {
        Some(cause) => anyhow::anyhow!(cause).context(text),
        None => anyhow::anyhow!(text),
    }
}

/// Makes the folder if it is missing, private, and takes it.
fn open_data_folder(folder: &Path) -> Result<Lock> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.with_context(|| format!("cannot make the data folder {}", folder.display()))?;
    let closed = std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700));
    closed.with_context(|| format!("the data folder {} cannot be made private", folder.display()))?;
    Lock::take(folder)
}

/// Reads the admin key, or makes one, and lets it in. The file holds only the key, and only its owner may read it.
async fn adopt_admin_key(control: &Control, file: &Path) -> Result<()> {
    let context = || format!("the admin key {}", file.display());
    let key = match std::fs::read_to_string(file) {
        Ok(text) if is_key(text.trim()) => text.trim().to_owned(),
        Ok(_) => bail!("{} holds no API key; delete it to have a new one made", file.display()),
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => {
            let key = Control::generate_key();
            write_private(file, &key).with_context(context)?;
            key
        }
        Err(why) => return Err(why).with_context(context),
    };
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).with_context(context)?;
    control.adopt_admin_key(&key).await.map_err(explain).with_context(context)
}

fn is_key(text: &str) -> bool {
    (32..=100).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
}

/// Writes aside and moves into place, so that nobody reads half a key.
fn write_private(file: &Path, text: &str) -> std::io::Result<()> {
    let aside = file.with_extension(format!("{}.tmp", std::process::id()));
    let mut out =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
    out.write_all(text.as_bytes())?;
    out.sync_all()?;
    std::fs::rename(&aside, file)
}

/// Past a limit of file sizes a write shall fail, and be answered for, instead of ending the process.
fn survive_a_full_disk() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut ignored = signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?;
    tokio::spawn(async move { while ignored.recv().await.is_some() {} });
    Ok(())
}

/// Returns when the process is asked to end. A second request ends it at once.
async fn end_asked() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        std::process::exit(130);
    });
    Ok(())
}

/// Checks the audit trail of the registry that the configuration names, beside a server that runs on it or without.
pub async fn verify_audit(config: &Config) -> Result<AuditReport> {
    for url in [config.store_url(), config.keyring_url()] {
        // Opening would make a database that is not there.
        if let Some(file) = url.strip_prefix("sqlite://").filter(|file| !Path::new(file).is_file()) {
            return Err(Exit::NotFound.with(format!("there is no registry here: no file {file}")));
        }
    }
    let keyring = Keyring::open(&config.keyring_url(), master_key(config)?).await?;
    let store = Store::open(&store_config(config)).await?;
    let key = keyring.signing_key(AUDIT_KEY).await?;
    let report = store.audit_verify(key.public()).await;
    store.close().await;
    keyring.close().await;
    Ok(report?)
}

fn store_config(config: &Config) -> StoreConfig {
    StoreConfig { url: config.store_url(), readers: config.store.readers }
}
