//! `/v1/scripts`

use axum::extract::State;
use axum::http::StatusCode;
use sluice_api_types::bytes::Base64;
use sluice_api_types::job::{JobLimits, Variable};
use sluice_api_types::page::{Page, PageQuery};
use sluice_api_types::script::{AddScript, Redacted, Script, ScriptText, ScriptVersion};

use super::Refusal;
use super::auth::{Operator, allow, own_tenant};
use super::extract::{Answer, Body, Path, Query, limit, next, uninterrupted};
use crate::host::SharedHost;
use crate::library::{self, ScriptName, VersionId};
use crate::operators::{Actor, Permission};
use crate::store::scripts::{self as store, ScriptRow, VersionRow};
use crate::store::{Connection, Page as StorePage, StoreError, offers};

/// Adds a script, or a version to one. 201 with the new version; 200 where the newest version is the same. Needs
/// `ManageScripts`.
#[utoipa::path(
    post, path = "/v1/scripts", request_body = AddScript,
    responses((status = 201, body = ScriptVersion), (status = 200, body = ScriptVersion))
)]
pub(super) async fn add_script(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Body(request): Body<AddScript>,
) -> Result<(StatusCode, Answer<ScriptVersion>), Refusal> {
    uninterrupted(async move {
        allow(&host, &actor, Permission::ManageScripts, "add a script").await?;
        own_tenant(&actor, request.tenant.as_deref())?;
        let added = library::add(&host, &actor, request, host.clock.now()).await?;
        let status = if added.is_new {
            StatusCode::CREATED
        } else {
            StatusCode::OK
        };
        Ok((status, Answer(shown_version(&actor, added.row))))
    })
    .await
}

/// Lists scripts by name, archived ones too. Needs `ReadScripts`.
#[utoipa::path(get, path = "/v1/scripts", params(PageQuery), responses((status = 200, body = Page<Script>)))]
pub(super) async fn list_scripts(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Query(query): Query<PageQuery>,
) -> Result<Answer<Page<Script>>, Refusal> {
    allow(&host, &actor, Permission::ReadScripts, "list scripts").await?;
    own_tenant(&actor, query.tenant.as_deref())?;
    let page = StorePage {
        after: query.after.unwrap_or_default(),
        limit: limit(query.limit)?,
    };
    let page = host
        .store
        .scan(move |conn| {
            let rows = store::list(conn, actor.tenant.id, &page)?;
            let next = (rows.len() == page.limit as usize)
                .then(|| rows.last().map(|row| row.name.to_string()))
                .flatten();
            let items = rows
                .into_iter()
                .map(|row| shown(conn, &actor, row))
                .collect::<Result<_, _>>()?;
            Ok::<_, StoreError>(Page { items, next })
        })
        .await?;
    Ok(Answer(page))
}

/// A script, with its newest version. Needs `ReadScripts`.
#[utoipa::path(get, path = "/v1/scripts/{script}", params(("script" = String, Path)), responses((status = 200, body = Script)))]
pub(super) async fn get_script(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Path(script): Path,
) -> Result<Answer<Script>, Refusal> {
    allow(&host, &actor, Permission::ReadScripts, "read a script").await?;
    found(&host, &actor, &script).map(Answer)
}

/// Archives a script: nothing of it is started or added any more, and what ran stays. Needs `ManageScripts`.
#[utoipa::path(post, path = "/v1/scripts/{script}/archive", params(("script" = String, Path)), responses((status = 200, body = Script)))]
pub(super) async fn archive_script(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Path(script): Path,
) -> Result<Answer<Script>, Refusal> {
    uninterrupted(async move {
        allow(&host, &actor, Permission::ManageScripts, "archive a script").await?;
        library::archive(&host, &actor, &script, host.clock.now()).await?;
        found(&host, &actor, &script).map(Answer)
    })
    .await
}

/// Lists the versions of a script, the oldest first, without their texts. Needs `ReadScripts`.
#[utoipa::path(
    get, path = "/v1/scripts/{script}/versions", params(("script" = String, Path), PageQuery),
    responses((status = 200, body = Page<ScriptVersion>))
)]
pub(super) async fn list_versions(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Path(script): Path,
    Query(query): Query<PageQuery>,
) -> Result<Answer<Page<ScriptVersion>>, Refusal> {
    allow(
        &host,
        &actor,
        Permission::ReadScripts,
        "list versions of a script",
    )
    .await?;
    own_tenant(&actor, query.tenant.as_deref())?;
    let after = query
        .after
        .map_or(Ok(0), |text| text.parse())
        .map_err(|error| Refusal::invalid(format!("after: {error}")))?;
    let (tenant, limit) = (actor.tenant.id, limit(query.limit)?);
    let name = name(&script)?;
    let rows = host
        .store
        .scan(move |conn| store::versions(conn, tenant, &name, after, limit))
        .await?;
    // A script has a version from the start, so this is the first page of none.
    if rows.is_empty() && after == 0 {
        return Err(none(&script));
    }
    let next = next(&rows, limit, |row| row.id.version.to_string());
    let items = rows
        .into_iter()
        .map(|row| shown_version(&actor, row))
        .collect();
    Ok(Answer(Page { items, next }))
}

/// A version with its text. Needs `ReadScripts`.
#[utoipa::path(
    get, path = "/v1/scripts/{script}/versions/{version}", params(("script" = String, Path), ("version" = String, Path)),
    responses((status = 200, body = ScriptText))
)]
pub(super) async fn get_version(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Path((script, version)): Path<(String, String)>,
) -> Result<Answer<ScriptText>, Refusal> {
    allow(&host, &actor, Permission::ReadScripts, "read a script").await?;
    let id = VersionId {
        name: name(&script).map_err(|_| no_version(&script, &version))?,
        version: number(&script, &version)?,
    };
    let tenant = actor.tenant.id;
    let row = host
        .store
        .scan(move |conn| {
            let Some(row) = store::version(conn, tenant, &id)? else {
                return Ok(None);
            };
            let text = store::text(conn, tenant, &id)?;
            Ok::<_, StoreError>(Some((row, text)))
        })
        .await?;
    let (row, text) = row.ok_or_else(|| no_version(&script, &version))?;
    let (script, declaration) = text
        .map(|text| (Base64(text.script), text.declaration))
        .unzip();
    Ok(Answer(ScriptText {
        version: shown_version(&actor, row),
        script,
        declaration: declaration.flatten(),
    }))
}

/// Erases the text of a version for good, and that of every other version with the same bytes. Their digests and settings
/// and what ran stay; what has not started of them is canceled. Needs `ManageScripts`.
#[utoipa::path(
    post, path = "/v1/scripts/{script}/versions/{version}/redact",
    params(("script" = String, Path), ("version" = String, Path)), responses((status = 200, body = Redacted))
)]
pub(super) async fn redact_version(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Path((script, version)): Path<(String, String)>,
) -> Result<Answer<Redacted>, Refusal> {
    uninterrupted(async move {
        allow(&host, &actor, Permission::ManageScripts, "redact a script").await?;
        let number = number(&script, &version)?;
        let done = library::redact(&host, &actor, &script, number, host.clock.now()).await?;
        Ok(Answer(Redacted {
            redacted: done.redacted.into_iter().map(Into::into).collect(),
            canceled: done.canceled,
        }))
    })
    .await
}

fn found(host: &SharedHost, actor: &Actor, script: &str) -> Result<Script, Refusal> {
    let name = name(script)?;
    host.store.read(|conn| {
        let row = store::find(conn, actor.tenant.id, &name)?.ok_or_else(|| none(script))?;
        Ok(shown(conn, actor, row)?)
    })
}

fn shown(conn: &Connection, actor: &Actor, row: ScriptRow) -> Result<Script, StoreError> {
    let latest = store::latest(conn, actor.tenant.id, &row.name)?
        .ok_or_else(|| StoreError::Corrupt(format!("the script {} has no version", row.name)))?;
    let offered = match row.name.is_the_providers() {
        true => Some(offers::versions(
            conn,
            actor.tenant.id,
            &row.name.at_home(),
        )?),
        false => None,
    };
    Ok(Script {
        name: row.name.to_string(),
        tenant: actor.tenant.name.clone(),
        description: latest.settings.description.clone(),
        created_at: row.created.to_string(),
        created_by: row.created_by,
        archived_at: row.archived.map(|at| at.to_string()),
        archived_by: row.archived_by,
        // Versions are counted without gaps, but of the provider's a customer has those that were offered.
        versions: latest.id.version,
        offered,
        latest: shown_version(actor, latest),
    })
}

fn shown_version(actor: &Actor, row: VersionRow) -> ScriptVersion {
    let settings = row.settings;
    let declared = row.declared.unwrap_or_default();
    ScriptVersion {
        name: row.id.name.to_string(),
        version: row.id.version,
        tenant: actor.tenant.name.clone(),
        description: settings.description,
        script_sha256: row.script_sha256,
        size: row.size,
        interpreter: settings.interpreter,
        os: settings.os,
        parameters: declared.parameters,
        requires: declared.requires,
        run_as: settings.run_as,
        limits: JobLimits {
            time: settings.limits.time,
            output: settings.limits.output,
            memory: settings.limits.memory,
        },
        confinement: settings.confinement,
        environment: settings
            .environment
            .into_iter()
            .map(|variable| Variable {
                name: variable.name,
                value: variable.value,
            })
            .collect(),
        created_at: row.created.to_string(),
        created_by: row.created_by,
        redacted_at: row.redacted.map(|at| at.to_string()),
        redacted_by: row.redacted_by,
    }
}

/// What is no name is no script's.
fn name(text: &str) -> Result<ScriptName, Refusal> {
    text.parse().map_err(|_| none(text))
}

/// What is no number is no version's.
fn number(script: &str, version: &str) -> Result<u64, Refusal> {
    version.parse().map_err(|_| no_version(script, version))
}

fn none(text: &str) -> Refusal {
    Refusal::not_found(
        "script-not-found",
        format!("there is no script {} in the library", text.escape_debug()),
    )
}

fn no_version(script: &str, version: &str) -> Refusal {
    Refusal::not_found(
        "script-version-not-found",
        format!(
            "there is no version {} of a script {} in the library",
            version.escape_debug(),
            script.escape_debug()
        ),
    )
}
