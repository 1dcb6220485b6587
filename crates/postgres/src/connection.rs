//! A connection and the task that drives it, so that statements can be sent before earlier ones are answered.

use std::future::poll_fn;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_postgres::{AsyncMessage, Client};

use crate::error::Error;
use crate::server::Server;

/// Time for a connection to close in order.
const CLOSING: Duration = Duration::from_secs(5);

/// The task that drives a connection. Dropping it cuts the connection.
pub struct Driver(JoinHandle<()>);

/// Connects. The payloads of notifications are sent to `heard`.
pub async fn connect(
    server: &Server,
    heard: Option<mpsc::UnboundedSender<String>>,
) -> Result<(Client, Driver), Error> {
    let connector = server.tls.connector().map_err(Error::Tls)?;
    let (client, mut connection) = server.config.connect(connector).await?;
    let driver = tokio::spawn(async move {
        loop {
            match poll_fn(|context| connection.poll_message(context)).await {
                Some(Ok(AsyncMessage::Notification(notification))) => {
                    if let Some(heard) = &heard {
                        // The listener may have gone.
                        let _ = heard.send(notification.payload().to_owned());
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    tracing::debug!(kind = ?Error::from(error).kind(), "a session has ended");
                    return;
                }
                None => return,
            }
        }
    });
    Ok((client, Driver(driver)))
}

impl Driver {
    /// Waits until the connection, whose client is dropped, is closed in order.
    pub async fn ended(mut self) {
        if tokio::time::timeout(CLOSING, &mut self.0).await.is_err() {
            tracing::debug!("a session did not end in order");
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}
