//! `sluice-host init`: a folder, an authority, the provider's own tenant, and the first token.

use std::path::Path;

use sluice_protocol::ids::HostId;
use sluice_transport::identity::{self, Authority};

use crate::audit::{self, Event, EventKind};
use crate::clock::UnixMillis;
use crate::directory::{DataDirectory, DirectoryError};
use crate::operators::{self, BearerToken, CreateTokenError, Grants, MadeBy};
use crate::store::{OpenError, Store, tenants};

/// The name of the operator whose token is the first.
const FIRST_OPERATOR: &str = "admin";

/// Sets a host up in the folder `data`, and gives the token of its first operator, who is the provider's and may do everything.
///
/// # Errors
///
/// Where there is a host already, or the folder cannot be used. What was made is removed then, so that a second try
/// starts afresh.
pub async fn init(data: &Path, now: UnixMillis) -> Result<BearerToken, InitError> {
    let directory = DataDirectory::create(data)?;
    let _locked = directory.lock()?;
    match set_up(&directory, now).await {
        Ok(token) => Ok(token),
        Err(error) => {
            remove(&directory);
            Err(error)
        }
    }
}

async fn set_up(directory: &DataDirectory, now: UnixMillis) -> Result<BearerToken, InitError> {
    Authority::create(&directory.authority())?;
    let store = Store::open(&directory.database())?;
    let token = store
        .write(move |conn| {
            let host = HostId::generate();
            tenants::set_host_id(conn, host, now)?;
            let tenant = tenants::create_provider(conn, tenants::DEFAULT, now)?;
            let (row, token) = operators::create(
                conn,
                tenant.id,
                FIRST_OPERATOR,
                Grants::of_role(operators::OWNER),
                None,
                MadeBy::default(),
                now,
            )?;
            let events = [
                Event::by_host(EventKind::HostInitialized).detail("host", host.to_string()),
                Event::by_host(EventKind::TokenCreated)
                    .detail("token", row.id.to_string())
                    .detail("name", row.name),
            ];
            audit::append(conn, &tenant, now, events)?;
            Ok::<_, CreateTokenError>(token)
        })
        .await?;
    store.close().await;
    Ok(token)
}

/// What a failed set-up leaves is of no use to anybody.
fn remove(directory: &DataDirectory) {
    let database = directory.database();
    let mut files = vec![database.clone()];
    files.extend(["-wal", "-shm"].map(|end| {
        let mut name = database.clone().into_os_string();
        name.push(end);
        name.into()
    }));
    for path in files {
        if let Err(error) = std::fs::remove_file(&path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "a file of the failed set-up could not be removed");
        }
    }
    if let Err(error) = std::fs::remove_dir_all(directory.authority())
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(%error, "the folder of the failed set-up's keys could not be removed");
    }
}

/// No host was set up.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The folder.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The keys.
    #[error("the authority cannot be made")]
    Authority(#[from] identity::StoreError),
    /// The database.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The first token.
    #[error(transparent)]
    Token(#[from] CreateTokenError),
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::operators::{Permission, Roles};

    #[tokio::test]
    async fn a_host_is_set_up_once_for_its_owner_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let data = dir.path().join("a/host");
        let token = init(&data, UnixMillis::now()).await.expect("sets up");
        assert!(token.reveal().len() > 40);
        assert!(matches!(
            init(&data, UnixMillis::now()).await,
            Err(InitError::Directory(DirectoryError::Initialized(_)))
        ));
        assert_eq!(
            std::fs::metadata(&data)
                .expect("metadata")
                .permissions()
                .mode()
                & 0o777,
            0o700
        );
        let directory = DataDirectory::open(&data).expect("opens");
        let store = Store::open(&directory.database()).expect("opens");
        let tenant = store
            .read(|conn| tenants::find_by_name(conn, tenants::DEFAULT))
            .expect("reads")
            .expect("is there");
        assert_eq!(
            audit::verify(&store, &tenant).await.expect("holds").entries,
            2
        );
        let actor = store
            .read(|conn| {
                operators::authenticate(conn, &Roles::default(), &token, "test", UnixMillis::now())
            })
            .expect("is good");
        assert_eq!(actor.permissions().count(), Permission::ALL.len());
    }

    #[tokio::test]
    async fn a_folder_that_others_can_enter_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755))
            .expect("changes");
        let error = init(dir.path(), UnixMillis::now())
            .await
            .expect_err("is refused");
        assert!(error.to_string().contains("chmod 700"), "{error}");
    }
}
