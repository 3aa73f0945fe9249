//! How one operation goes, from the machine's stream into the store.

use sluice_protocol::ending::State;
use sluice_protocol::ids::OperationId;
use sluice_protocol::message::CloseCode;
use sluice_protocol::message::operation::Progress;
use sluice_transport::error::LinkError;
use sluice_transport::host::HostConnection;
use sluice_transport::progress::ProgressReceiver;

use super::Link;
use crate::clock::UnixMillis;
use crate::fleet::{Command, Session};
use crate::jobs::{self, Machine, Outcome};
use crate::receipts::{self, Ahead, Signer};
use crate::store::{StoreError, history};

/// Reads one stream to its end.
pub(super) async fn serve(
    link: &Link,
    machine: &Machine,
    session: &Session,
    connection: &HostConnection,
    mut stream: ProgressReceiver,
) {
    let operation = stream.operation();
    let mut ahead = None;
    loop {
        let progress = match stream.recv().await {
            Ok(Some(progress)) => progress,
            Ok(None) | Err(LinkError::Interrupted) => return,
            Err(error) => {
                tracing::debug!(%operation, %error, "a progress stream ended early; the machine opens another");
                return;
            }
        };
        let stored = store(
            link, machine, session, connection, operation, &mut ahead, progress,
        );
        if let Err(error) = stored.await {
            // Nothing is acknowledged that is not stored. The machine comes back and says it again.
            tracing::error!(%operation, %error, "a machine's progress could not be stored");
            connection.close(CloseCode::Busy, "the host cannot store progress now");
            return;
        }
    }
}

async fn store(
    link: &Link,
    machine: &Machine,
    session: &Session,
    connection: &HostConnection,
    operation: OperationId,
    ahead: &mut Option<Ahead>,
    progress: Progress,
) -> Result<(), StoreError> {
    let (host, now) = (&link.host, link.host.clock.now());
    let signer = Signer {
        machine,
        certificate: connection.certificate(),
    };
    match progress {
        // The transport has taken it, and lets no second one through.
        Progress::Of(_) => Ok(()),
        Progress::Accepted => {
            jobs::store_step(host, machine, operation, State::Accepted, None, now).await
        }
        Progress::Checking => {
            jobs::store_step(host, machine, operation, State::Checking, None, now).await
        }
        Progress::Running { started_at } => {
            jobs::store_step(
                host,
                machine,
                operation,
                State::Running,
                Some(UnixMillis::from_wire(started_at)),
                now,
            )
            .await
        }
        // With what follows on this stream or before it: changes are made in the order in which they are handed over.
        Progress::Ledger(mark) if session.is_confirmed() => {
            let machine = machine.id;
            host.store
                .write_lazily(
                    move |conn| history::advance(conn, machine, mark),
                    |stored| {
                        if let Err(error) = stored {
                            tracing::error!(%error, "how far a machine's ledger is could not be stored");
                        }
                    },
                )
                .await
        }
        Progress::Ledger(_) => Ok(()),
        Progress::Output(chunk) => jobs::store_output(host, machine, operation, chunk).await,
        Progress::Receipts(attested) => {
            let verified = match ahead {
                None => Ahead::verify(signer, operation, *attested),
                Some(_) => Err("a machine brought its receipts twice"),
            };
            match verified {
                Ok(verified) => {
                    *ahead = Some(verified.clone());
                    jobs::store_receipts(host, machine, operation, verified, now).await
                }
                // As below.
                Err(reason) => {
                    connection.violation(&format!("{reason} ({operation})"));
                    Ok(())
                }
            }
        }
        Progress::Finished(report) => {
            let reported = match receipts::verify(signer, operation, *report, ahead.take()) {
                Ok(reported) => reported,
                // As below.
                Err(reason) => {
                    connection.violation(&format!("{reason} ({operation})"));
                    return Ok(());
                }
            };
            match jobs::store_report(host, machine, operation, reported, now).await? {
                Outcome::Acknowledge { audit_head } => {
                    session
                        .send_wait(Command::Acknowledge {
                            operation,
                            audit_head,
                        })
                        .await
                }
                // The session ends with it, and puts it on the record.
                Outcome::Violation(reason) => {
                    connection.violation(&format!("{reason} ({operation})"));
                }
            }
            Ok(())
        }
    }
}
