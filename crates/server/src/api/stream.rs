//! Live streams (server-sent events): each ends when its subject is done, when the server drains, or after a quarter
//! of an hour, so that a revoked key does not listen for ever; the client comes back with the last id that it saw.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use futures::{Stream, stream};
use serde::Serialize;
use tenantry_control::access::Caller;
use tenantry_control::error::Error;
use tenantry_control::view::{EventView, OperationView};
use tenantry_engine::Changes;
use tenantry_model::id::OperationId;
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;

use super::App;

/// Longest life of one connection.
const LIFE: Duration = Duration::from_secs(15 * 60);
/// Time between comments that show that the line still stands.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// What a client should wait before it comes back.
const COME_BACK: Duration = Duration::from_secs(2);
/// Events read at once.
const BATCH: u64 = 100;

type Message = Result<Event, Infallible>;

fn sse<S: Stream<Item = Message> + Send + 'static>(
    messages: S,
) -> Sse<impl Stream<Item = Message> + Send + 'static> {
    Sse::new(messages).keep_alive(KeepAlive::new().interval(HEARTBEAT))
}

/// A message. The data of one that cannot be written, which does not happen, is empty.
fn message<T: Serialize>(id: i64, data: &T) -> Message {
    let event = Event::default().id(id.to_string()).retry(COME_BACK);
    Ok(event.json_data(data).unwrap_or_else(|_| Event::default()))
}

/// Whether the connection may live on; otherwise, the work's result.
async fn while_alive<T>(app: &App, end: Instant, work: impl Future<Output = Option<T>>) -> Option<T> {
    tokio::select! {
        biased;
        () = app.draining.cancelled() => None,
        () = tokio::time::sleep_until(end) => None,
        result = work => result,
    }
}

/// An operation: what it is now, unless the client has seen that, and then each change until it is done.
pub fn operation(
    app: Arc<App>,
    caller: Caller,
    now: OperationView,
    changes: Changes,
    seen: Option<i64>,
) -> Sse<impl Stream<Item = Message> + Send + 'static> {
    let end = Instant::now() + LIFE;
    let id = now.id;
    let first = (seen < Some(now.version)).then_some(now);
    let seen = first.as_ref().map_or(seen, |view| Some(view.version)).unwrap_or_default();
    let start = (first, changes, seen, false);
    sse(stream::unfold(start, move |(first, mut changes, seen, over)| {
        let (app, caller) = (app.clone(), caller.clone());
        async move {
            if over {
                return None;
            }
            let view = match first {
                Some(view) => view,
                None => while_alive(&app, end, next_change(&app, &caller, id, &mut changes, seen)).await?,
            };
            Some((message(view.version, &view), (None, changes, view.version, view.done)))
        }
    }))
}

/// The operation after its next change; none when it cannot be read, and then the client comes back.
async fn next_change(
    app: &App,
    caller: &Caller,
    id: OperationId,
    changes: &mut Changes,
    seen: i64,
) -> Option<OperationView> {
    loop {
        match changes.next().await {
            Ok(run) if run.operation.version <= seen => continue,
            // Missed some: perhaps the one that counts.
            Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return None,
        }
        let view = app.control.operation(caller, id).await.ok()?;
        if view.version > seen {
            return Some(view);
        }
    }
}

/// Every event after this sequence number, as they come.
pub fn events(
    app: Arc<App>,
    caller: Caller,
    after: i64,
) -> Sse<impl Stream<Item = Message> + Send + 'static> {
    let end = Instant::now() + LIFE;
    let head = app.control.event_head();
    let batches = stream::unfold((head, after), move |(mut head, after)| {
        let (app, caller) = (app.clone(), caller.clone());
        async move {
            let batch = while_alive(&app, end, next_events(&app, &caller, &mut head, after)).await?;
            let last = batch.last().map_or(after, |event| event.seq);
            let messages: Vec<Message> = batch.iter().map(|event| message(event.seq, event)).collect();
            Some((stream::iter(messages), (head, last)))
        }
    });
    sse(futures::StreamExt::flatten(batches))
}

/// The next events, once there are some.
async fn next_events(
    app: &App,
    caller: &Caller,
    head: &mut watch::Receiver<i64>,
    after: i64,
) -> Option<Vec<EventView>> {
    loop {
        // Marked as seen before the read, so that what is sealed meanwhile wakes us again.
        head.borrow_and_update();
        match app.control.events(caller, after, BATCH).await {
            Ok(events) if events.is_empty() => head.changed().await.ok()?,
            Ok(events) => return Some(events),
            Err(Error { .. }) => return None,
        }
    }
}
