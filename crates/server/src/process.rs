//! Runs one server process: lock, registry, admin key, listener, background tasks, and an orderly shutdown
//! within 15 seconds of SIGTERM.

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tenantry_control::{Control, ControlConfig, Parts, SessionLimits};
use tenantry_engine::ExecutorConfig;
use tenantry_store::keyring::{Cut, Keyring, MasterKey};
use tenantry_store::{AuditReport, Store, StoreConfig};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::api::{self, App, Metrics};
use crate::cli::Exit;
use crate::config::{self, Config};
use crate::descriptors;
use crate::front::InProcess;
use crate::lock::Lock;
use crate::serve::Server;

/// Time for running attempts to finish during shutdown. Together with the drain, less than 15 seconds.
const GRACE: Duration = Duration::from_secs(6);
/// Time for the control plane to stop. The next process resumes operations that are interrupted.
const STOP_TIMEOUT: Duration = Duration::from_secs(8);

/// Runs a server until SIGTERM or SIGINT. Calls `started` with the server's URL once it accepts connections.
pub async fn run(config: Config, started: impl FnOnce(&str)) -> Result<()> {
    ignore_file_size_signal()?;
    let mut lock = open_data_folder(&config.data_dir)?;
    let limits = config.limits.clone().within(descriptors::raise());
    let listener = listen(&config.listen).await?;
    let operators = match &config.operator_listen {
        Some(address) => Some(listen(address).await?),
        None => None,
    };
    let url = config.url(listener.local_addr()?);
    let metrics = Arc::new(Metrics::new());
    let control = start(&config, &url, metrics.clone()).await?;
    adopt_admin_key(&control, &config.admin_key()).await?;
    let draining = CancellationToken::new();
    let app = App::new(control.clone(), metrics.clone(), &limits, draining.clone());
    let router = api::router(app);
    control.set_front(Arc::new(InProcess(router.clone())));
    let stopped = CancellationToken::new();
    let server = Server::new(router, config.trusted_proxies.clone(), limits, metrics);
    let operator_address = operators.as_ref().map(TcpListener::local_addr).transpose()?;
    let serving = tokio::spawn(server.serve_all(listener, operators, stopped.clone()));
    lock.announce(&url)?;
    tracing::info!(url, operator_address = operator_address.map(tracing::field::display), "server started");
    started(&url);

    tokio::select! {
        requested = shutdown_requested() => requested?,
        never = control.run_background_tasks() => match never {},
    }
    tracing::info!("shutdown started");
    draining.cancel();
    tokio::time::sleep(Duration::from_millis(config.shutdown.delay_ms)).await;
    stopped.cancel();
    // A panic of the listener must not keep the control plane from stopping.
    let _ = serving.await;
    if tokio::time::timeout(STOP_TIMEOUT, control.stop()).await.is_err() {
        tracing::warn!("operations interrupted by shutdown; the next process resumes them");
    }
    tracing::info!("shutdown finished");
    Ok(())
}

/// Listens on this address and port.
async fn listen(address: &str) -> Result<TcpListener> {
    let address: SocketAddr = address.parse().with_context(|| format!("cannot listen on {address}"))?;
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
}

/// Builds the providers from the configuration and starts the control plane.
async fn start(config: &Config, url: &str, metrics: Arc<Metrics>) -> Result<Control> {
    let providers = config::build(config, url).await?;
    let mut parts = Parts::new(master_key(config)?, providers);
    parts.meter = Some(metrics);
    Control::start(control_config(config, url)?, parts).await.map_err(explain)
}

/// Translates the server's configuration into the control plane's.
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
        sessions: SessionLimits {
            idle: config.sessions.idle.duration(),
            lifetime: config.sessions.lifetime.duration(),
        },
        archives: config.archives(),
        import_most: config.import_max_bytes,
        executor: ExecutorConfig {
            max_active: config.executor.max_active,
            grace: GRACE,
            retry_for: config.executor.retry_for.duration(),
        },
        replicas: !config.store_url().starts_with("sqlite:"),
    })
}

/// Reads the master key, which encrypts each tenant's key; creates its file if the configuration allows that.
pub fn master_key(config: &Config) -> Result<MasterKey> {
    let (file, create) = config.master_key();
    Ok(if create { MasterKey::read_or_create(&file) } else { MasterKey::read(&file) }?)
}

/// Converts an error of the control plane for the terminal, with its cause and every invalid field.
pub fn explain(error: tenantry_control::Error) -> anyhow::Error {
    let mut text = error.message.clone();
    for field in &error.errors {
        text.push_str(&format!("\n  {}: {}", field.path, field.message));
    }
    match error.cause {
        Some(cause) => anyhow::anyhow!(cause).context(text),
        None => anyhow::anyhow!(text),
    }
}

/// Creates the data folder if it is missing, restricts it to its owner, and locks it.
fn open_data_folder(folder: &Path) -> Result<Lock> {
    let created = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    created.with_context(|| format!("cannot create the data folder {}", folder.display()))?;
    let restricted = std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700));
    restricted
        .with_context(|| format!("cannot restrict the data folder {} to its owner", folder.display()))?;
    Lock::take(folder)
}

/// Reads the admin key from its file, or generates it, and registers it. Only the file's owner may read it.
async fn adopt_admin_key(control: &Control, file: &Path) -> Result<()> {
    let context = || format!("the admin key {}", file.display());
    let key = match std::fs::read_to_string(file) {
        Ok(text) if is_key(text.trim()) => text.trim().to_owned(),
        Ok(_) => bail!("{} contains no API key; delete it to generate a new one", file.display()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let key = Control::generate_key();
            write_private(file, &key).with_context(context)?;
            key
        }
        Err(error) => return Err(error).with_context(context),
    };
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).with_context(context)?;
    control.adopt_admin_key(&key).await.map_err(explain).with_context(context)
}

fn is_key(text: &str) -> bool {
    (32..=100).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
}

/// Writes to a temporary file and renames it, so that a reader never sees an incomplete key.
fn write_private(file: &Path, text: &str) -> std::io::Result<()> {
    let temporary = file.with_extension(format!("{}.tmp", std::process::id()));
    let mut out =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    out.write_all(text.as_bytes())?;
    out.sync_all()?;
    std::fs::rename(&temporary, file)
}

/// Ignores SIGXFSZ: a write beyond a file size limit then returns an error instead of ending the process.
fn ignore_file_size_signal() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut ignored = signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?;
    tokio::spawn(async move { while ignored.recv().await.is_some() {} });
    Ok(())
}

/// Returns at the first SIGTERM or SIGINT. A second one ends the process at once with exit code 130.
async fn shutdown_requested() -> Result<()> {
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

/// Verifies the audit trail of the configured registry. A server may run on the same registry meanwhile.
pub async fn verify_audit(config: &Config) -> Result<AuditReport> {
    let (store, keyring) = open_existing(config).await?;
    let report = store.audit_verify(&keyring).await;
    store.close().await;
    keyring.close().await;
    Ok(report?)
}

/// Accepts the cuts of the audit trail. A server may run on the same registry meanwhile.
pub async fn accept_cuts(config: &Config, reason: &str) -> Result<Vec<Cut>> {
    let (store, keyring) = open_existing(config).await?;
    let accepted = store.accept_cuts(&keyring, reason).await;
    store.close().await;
    keyring.close().await;
    Ok(accepted?)
}

/// Opens the configured registry and keyring, which must exist.
async fn open_existing(config: &Config) -> Result<(Store, Keyring)> {
    for url in [config.store_url(), config.keyring_url()] {
        // Opening a database that does not exist would create it.
        if let Some(file) = url.strip_prefix("sqlite://").filter(|file| !Path::new(file).is_file()) {
            return Err(Exit::NotFound.with(format!("no registry found: {file} does not exist")));
        }
    }
    let keyring = Keyring::open(&config.keyring_url(), master_key(config)?).await?;
    Ok((Store::open(&store_config(config)).await?, keyring))
}

fn store_config(config: &Config) -> StoreConfig {
    StoreConfig { url: config.store_url(), readers: config.store.readers }
}
