use sluice_protocol::units::Span;

use super::*;
use crate::fleet::{self, Terms};
use crate::operators::{
    self, AuthenticationError, BearerToken, Grants, NewToken, authenticate_in, on_behalf_of,
};
use crate::store::tenants::ProviderAccess;
use crate::store::{self, tokens};
use crate::testing::{NOW, TestHost};

const HOUR: i64 = 3_600_000;

/// A host with the customer `acme`, and what is done there.
struct Case {
    test: TestHost,
    acme: Tenant,
}

impl Case {
    async fn new() -> Self {
        let test = TestHost::new().await;
        let acme = create(&test.host, &test.admin, "acme", NOW).await;
        let acme = acme.expect("is made").tenant;
        Self { test, acme }
    }

    async fn grant(
        &self,
        operator: &str,
        role: &str,
        end: End,
    ) -> Result<uuid::Uuid, ProviderError> {
        let new = NewGrant {
            operator: operator.to_owned(),
            tenant: "acme".to_owned(),
            roles: vec![role.to_owned()],
            end,
        };
        let row = add_grant(&self.test.host, &self.test.admin, new, NOW).await?;
        Ok(row.id)
    }

    fn there(&self, token: &BearerToken, at: i64) -> Result<Actor, AuthenticationError> {
        let (host, now) = (&self.test.host, UnixMillis(NOW.0 + at));
        let acting = |conn: &Connection| {
            authenticate_in(conn, &host.roles, token, Some("acme"), "test", now)
        };
        host.store.read(acting)
    }

    fn events(&self, tenant: &Tenant) -> Vec<sluice_api_types::audit::AuditEntry> {
        let read = |conn: &Connection| store::audit::list(conn, tenant.id, 0, 1000);
        self.test.host.store.read(read).expect("reads")
    }
}

fn is_no_tenant(got: Result<Actor, AuthenticationError>) -> bool {
    matches!(got, Err(AuthenticationError::NoTenant(name)) if name == "acme")
}

#[tokio::test]
async fn a_grant_that_has_a_time_ends_by_itself_also_for_what_was_begun() {
    let case = Case::new().await;
    let (_, tim) = case.test.with_roles("tim", &["viewer"]).await;
    assert!(is_no_tenant(case.there(&tim, 0)));
    let end = End::After(Span::seconds(3600));
    let grant = case
        .grant("tim", "operator", end)
        .await
        .expect("is granted");
    let actor = case.there(&tim, HOUR - 1).expect("is let in");
    assert_eq!(
        (actor.name.as_str(), &actor.tenant),
        ("provider/tim", &case.acme)
    );
    actor.require(Permission::RemoteExecution).expect("may");
    assert!(actor.require(Permission::Administer).is_err());
    assert!(matches!(actor.standing, Standing::Granted { grant: by, .. } if by == grant));
    assert!(is_no_tenant(case.there(&tim, HOUR)));
    let host = &case.test.host;
    let later = |at: i64| {
        let now = UnixMillis(NOW.0 + at);
        let acting = |conn: &Connection| {
            on_behalf_of(conn, &host.roles, case.acme.id, actor.token, "test", now)
        };
        host.store.read(acting)
    };
    assert_eq!(later(0).expect("may still").standing, actor.standing);
    assert!(is_no_tenant(later(HOUR)));
    let wrong = case.grant("tim", "viewer", End::At(NOW)).await;
    assert!(matches!(wrong, Err(ProviderError::End)), "{wrong:?}");
    let twice = case.grant("tim", "viewer", End::Never).await;
    assert!(
        matches!(twice, Err(ProviderError::Granted { .. })),
        "{twice:?}"
    );
}

#[tokio::test]
async fn nobody_of_a_customer_gets_into_another_by_any_row() {
    let case = Case::new().await;
    let (stranger, token) = case.test.stranger().await;
    let (acme, operator) = (case.acme.id, stranger.operator);
    // What no code writes.
    let write = move |conn: &Connection| {
        store::grants::insert(
            conn,
            &store::grants::GrantRow {
                id: uuid::Uuid::now_v7(),
                tenant: acme,
                operator,
                roles: vec!["owner".to_owned()],
                created: NOW,
                created_by: "x".to_owned(),
                expires: None,
                revoked: None,
            },
        )
    };
    case.test.host.store.write(write).await.expect("writes");
    assert!(is_no_tenant(case.there(&token, 0)));
}

#[tokio::test]
async fn a_tenant_keeps_the_provider_out_and_only_its_own_administrators_say_so() {
    let case = Case::new().await;
    let host = &case.test.host;
    case.grant("admin", "owner", End::Never)
        .await
        .expect("is granted");
    let admin = case.there(&case.test.token, 0).expect("is let in");
    let deny = ProviderAccess::DeniedSince(NOW);
    let refused = set_access(host, &admin, deny, NOW).await;
    assert!(
        matches!(refused, Err(AccessError::ByGrant(_))),
        "{refused:?}"
    );
    let refused = set_access(host, &case.test.admin, deny, NOW).await;
    assert!(
        matches!(refused, Err(AccessError::Provider(_))),
        "{refused:?}"
    );
    let acme = case.acme.id;
    let make = move |conn: &Connection| {
        let made_by = operators::MadeBy::default();
        let owner = Grants::of_role("owner");
        operators::create(conn, acme, "bob", owner, None, made_by, NOW)
    };
    let (_, bob) = host.store.write(make).await.expect("makes a token");
    // In their own tenant, by its name or without.
    let bob = case.there(&bob, 0).expect("is good");
    assert_eq!(bob.standing, Standing::Own(TenantKind::Customer));
    set_access(host, &bob, deny, NOW).await.expect("is changed");
    assert!(is_no_tenant(case.there(&case.test.token, 0)));
    for tenant in [&case.acme, &case.test.tenant] {
        let events = case.events(tenant);
        let denied = events
            .iter()
            .filter(|entry| entry.event == "provider_access_denied");
        assert_eq!(denied.count(), 1, "{}", tenant.name);
    }
    // The grant is there all the time.
    set_access(host, &bob, ProviderAccess::Allowed, NOW)
        .await
        .expect("is changed");
    case.there(&case.test.token, 0).expect("is let in");
}

#[tokio::test]
async fn what_a_role_at_home_forbids_is_forbidden_by_grants_too() {
    let case = Case::new().await;
    let host = &case.test.host;
    let text = "permit (principal, action == Action::\"ReadAudit\", resource);
                forbid (principal, action == Action::\"ReadJobs\", resource);";
    let put = operators::put_role(host, &case.test.admin, "bound", text.to_owned(), NOW).await;
    put.expect("is a role");
    let (_, tim) = case.test.with_roles("tim", &["bound"]).await;
    case.grant("tim", "viewer", End::Never)
        .await
        .expect("is granted");
    let tim = case.there(&tim, 0).expect("is let in");
    tim.require(Permission::ReadMachines)
        .expect("the grant gives it");
    let denied = tim.require(Permission::ReadJobs).expect_err("is forbidden");
    assert!(
        denied.to_string().contains("the role bound forbids it"),
        "{denied}"
    );
    // What they may do at home is not for elsewhere.
    assert!(tim.require(Permission::ReadAudit).is_err());
    assert!(!tim.rights.may_always(Permission::ReadJobs));
}

#[tokio::test]
async fn what_is_made_by_a_grant_lives_no_longer_than_it() {
    let case = Case::new().await;
    let host = &case.test.host;
    let end = End::After(Span::seconds(3600));
    case.grant("admin", "owner", end).await.expect("is granted");
    let admin = case.there(&case.test.token, 0).expect("is let in");
    let new = |expires| NewToken {
        name: "bob".to_owned(),
        operator: None,
        grants: Grants::of_role("owner"),
        expires,
    };
    for expires in [None, Some(Span::seconds(3601))] {
        let made = operators::token(host, &admin, new(expires), NOW).await;
        assert!(
            matches!(made, Err(operators::CreateTokenError::Outlives(end)) if end.0 == NOW.0 + HOUR),
            "{expires:?}"
        );
    }
    let made = operators::token(host, &admin, new(Some(Span::seconds(3600))), NOW).await;
    made.expect("is made");
    let terms = Terms {
        expires: Some(Span::seconds(100_000)),
        ..Terms::default()
    };
    let token = fleet::create_token(&host.store, &admin, terms, NOW)
        .await
        .expect("is made");
    let find = |conn: &Connection| store::enroll_tokens::find(conn, token.id);
    let row = host.store.read(find).expect("reads").expect("is there");
    assert_eq!((row.tenant, row.expires.0), (case.acme.id, NOW.0 + HOUR));
}

impl Case {
    /// An owner of acme's own, whom nobody's grant made.
    async fn bob(&self) -> Actor {
        let acme = self.acme.id;
        let make = move |conn: &Connection| {
            let made_by = operators::MadeBy::default();
            let owner = Grants::of_role("owner");
            operators::create(conn, acme, "bob", owner, None, made_by, NOW)
        };
        let (_, token) = self.test.host.store.write(make).await.expect("is made");
        self.there(&token, 0).expect("is good")
    }

    async fn token(
        &self,
        maker: &Actor,
        name: &str,
        operator: Option<&str>,
        expires: Option<u64>,
    ) -> Result<(tokens::TokenRow, BearerToken), operators::CreateTokenError> {
        let new = NewToken {
            name: name.to_owned(),
            operator: operator.map(str::to_owned),
            grants: match operator {
                Some(_) => Grants::default(),
                None => Grants::of_role("owner"),
            },
            expires: expires.map(Span::seconds),
        };
        operators::token(&self.test.host, maker, new, NOW).await
    }

    /// Whether a machine joins with a token.
    async fn joins(&self, token: &fleet::NewToken) -> Result<(), fleet::EnrollError> {
        let joined = fleet::admit(
            &self.test.host.store,
            token.id,
            &token.secret,
            "web-1",
            Vec::new(),
            [192, 0, 2, 1].into(),
            NOW,
            |_, _| Ok(()),
        );
        joined.await.map(|_| ())
    }
}

fn is_over(got: Result<Actor, AuthenticationError>) -> bool {
    matches!(got, Err(AuthenticationError::GrantOver { .. }))
}

#[tokio::test]
async fn what_a_grant_made_is_good_for_nothing_once_that_is_over_or_the_provider_is_kept_out() {
    let case = Case::new().await;
    let host = &case.test.host;
    let grant = case.grant("admin", "owner", End::Never).await;
    let grant = grant.expect("is granted").to_string();
    let admin = case.there(&case.test.token, 0).expect("is let in");
    let bob = case.bob().await;
    let (_, x) = case.token(&admin, "x", None, None).await.expect("is made");
    let acting = case.there(&x, 0).expect("is good");
    // What it makes is made by the grant too, for whomever.
    let (row, y) = case.token(&acting, "y", None, None).await.expect("is made");
    let (_, third) = case
        .token(&acting, "bob-2", Some("bob"), None)
        .await
        .expect("is made");
    let acting = case.there(&y, 0).expect("is good");
    let deny = ProviderAccess::DeniedSince(NOW);
    for access in [deny, ProviderAccess::Allowed] {
        let refused = set_access(host, &acting, access, NOW).await;
        assert!(
            matches!(refused, Err(AccessError::ByInvitation(_))),
            "{refused:?}"
        );
    }
    set_access(host, &bob, deny, NOW).await.expect("is changed");
    for token in [&x, &y, &third] {
        assert!(is_over(case.there(token, 0)));
    }
    set_access(host, &bob, ProviderAccess::Allowed, NOW)
        .await
        .expect("is changed");
    case.there(&y, 0).expect("is good again");
    revoke_grant(host, &case.test.admin, &grant, NOW)
        .await
        .expect("is revoked");
    for token in [&x, &y, &third] {
        assert!(is_over(case.there(token, 0)));
    }
    // Nor does what was begun with it go on.
    let later =
        |conn: &Connection| on_behalf_of(conn, &host.roles, case.acme.id, row.id, "test", NOW);
    assert!(is_over(host.store.read(later)));
}

#[tokio::test]
async fn whoever_is_invited_to_be_the_first_administrator_makes_a_token_that_lasts_once() {
    use crate::operators::CreateTokenError;
    let case = Case::new().await;
    let host = &case.test.host;
    let end = End::After(Span::seconds(3600));
    case.grant("admin", "owner", end).await.expect("is granted");
    let admin = case.there(&case.test.token, 0).expect("is let in");
    let mut invited = Vec::new();
    for name in ["boss", "carol"] {
        let owner = vec!["owner".to_owned()];
        let made = operators::add(host, &admin, name.to_owned(), owner, NOW).await;
        made.expect("is made");
        let token = format!("{name}-1");
        let made = case.token(&admin, &token, Some(name), Some(3600)).await;
        let (_, token) = made.expect("is made");
        invited.push((case.there(&token, 0).expect("is good"), token));
    }
    let [(boss, boss_1), (carol, _)] = &invited[..] else {
        panic!("two were invited");
    };
    let outlives = |made: Result<_, CreateTokenError>| {
        assert!(matches!(made, Err(CreateTokenError::Outlives(_))));
    };
    // Not for somebody else, and not for one who is no more than a token.
    outlives(case.token(boss, "carol-2", Some("carol"), None).await);
    outlives(case.token(boss, "x", None, None).await);
    let made = case.token(&admin, "x", None, Some(3600)).await;
    let x = case.there(&made.expect("is made").1, 0).expect("is good");
    outlives(case.token(&x, "x-2", Some("x"), None).await);
    // By the same name too: the other is no good any more.
    let made = case.token(boss, "boss-1", Some("boss"), None).await;
    let (row, lasting) = made.expect("is made");
    assert_eq!((row.made_by_grant, row.expires), (None, None));
    let got = case.there(boss_1, 0);
    assert!(
        matches!(got, Err(AuthenticationError::Revoked { .. })),
        "{got:?}"
    );
    // All others are let in by the first.
    outlives(case.token(carol, "carol-2", Some("carol"), None).await);
    let boss = case.there(&lasting, 2 * HOUR).expect("lasts");
    let made = case.token(&boss, "carol-2", Some("carol"), None).await;
    assert_eq!(made.expect("is made").0.made_by_grant, None);
    for access in [ProviderAccess::DeniedSince(NOW), ProviderAccess::Allowed] {
        let changed = set_access(host, &boss, access, NOW).await;
        changed.expect("is theirs to say");
    }
    let events = case.events(&case.acme);
    let taken_up = events.iter().filter(|entry| {
        entry
            .details
            .get("invitation")
            .is_some_and(|id| !id.is_null())
    });
    assert_eq!(taken_up.count(), 1);
}

#[tokio::test]
async fn a_token_for_machines_that_a_grant_made_brings_none_in_while_the_provider_is_kept_out() {
    let case = Case::new().await;
    let host = &case.test.host;
    let grant = case.grant("admin", "owner", End::Never).await;
    let grant = grant.expect("is granted").to_string();
    let admin = case.there(&case.test.token, 0).expect("is let in");
    let bob = case.bob().await;
    let (_, x) = case.token(&admin, "x", None, None).await.expect("is made");
    let x = case.there(&x, 0).expect("is good");
    let make = async |actor: &Actor| {
        let terms = Terms {
            uses: Some(3),
            ..Terms::default()
        };
        let made = fleet::create_token(&host.store, actor, terms, NOW).await;
        made.expect("is made")
    };
    let (by_admin, by_x, by_bob) = (make(&admin).await, make(&x).await, make(&bob).await);
    case.joins(&by_admin).await.expect("joins");
    case.joins(&by_x).await.expect("joins");
    // Also where nobody has revoked them.
    let acme = case.acme.id;
    let access =
        move |access| move |conn: &Connection| store::tenants::set_access(conn, acme, access);
    let deny = ProviderAccess::DeniedSince(NOW);
    host.store.write(access(deny)).await.expect("writes");
    for token in [&by_admin, &by_x] {
        let refused = case.joins(token).await;
        assert!(
            matches!(refused, Err(fleet::EnrollError::Revoked(_))),
            "{refused:?}"
        );
    }
    case.joins(&by_bob).await.expect("joins");
    let allowed = access(ProviderAccess::Allowed);
    host.store.write(allowed).await.expect("writes");
    case.joins(&by_x).await.expect("joins");
    // Whoever denies does, for good; and so does whoever revokes the grant.
    for access in [deny, ProviderAccess::Allowed] {
        set_access(host, &bob, access, NOW)
            .await
            .expect("is changed");
    }
    let again = make(&x).await;
    case.joins(&again).await.expect("joins");
    revoke_grant(host, &case.test.admin, &grant, NOW)
        .await
        .expect("is revoked");
    for token in [&by_admin, &by_x, &again] {
        let find = |conn: &Connection| store::enroll_tokens::find(conn, token.id);
        let row = host.store.read(find).expect("reads").expect("is there");
        assert_eq!(row.revoked, Some(NOW));
    }
    case.joins(&by_bob).await.expect("joins");
}

#[tokio::test]
async fn nobody_approves_by_a_grant_what_they_submitted_by_a_token_that_it_made() {
    use crate::jobs::{self, ApproveError};
    let case = Case::new().await;
    let host = &case.test.host;
    case.test.with_roles("kim", &["viewer"]).await;
    for operator in ["admin", "kim"] {
        let granted = case.grant(operator, "owner", End::Never).await;
        granted.expect("is granted");
    }
    let admin = case.there(&case.test.token, 0).expect("is let in");
    let bob = case.bob().await;
    let (x, y) = (
        case.token(&admin, "x", None, None)
            .await
            .expect("is made")
            .1,
        case.token(&admin, "y", None, None)
            .await
            .expect("is made")
            .1,
    );
    let (x, y) = (
        case.there(&x, 0).expect("is good"),
        case.there(&y, 0).expect("is good"),
    );
    let acme = case.acme.id;
    let machine = sluice_protocol::ids::MachineId::generate();
    let insert =
        move |conn: &Connection| store::machines::insert(conn, acme, machine, "web-1", &[], NOW);
    host.store.write(insert).await.expect("enrolls");
    let job = jobs::submit(host, &x, crate::testing::request("web-1"), None, NOW).await;
    let job = job.expect("is accepted").to_string();
    for (actor, is_one) in [(&admin, true), (&y, true), (&bob, false)] {
        let request = sluice_api_types::job::ApproveJob::default();
        let got = jobs::approve(host, actor, &job, request, NOW).await;
        // Nothing of it was blocked, so the others fail at that.
        assert_eq!(
            matches!(got, Err(ApproveError::Made { .. })),
            is_one,
            "{got:?}"
        );
    }
}

#[tokio::test]
async fn who_made_a_token_is_known_across_tenants() {
    let case = Case::new().await;
    let host = &case.test.host;
    case.grant("admin", "owner", End::Never)
        .await
        .expect("is granted");
    let admin = case.there(&case.test.token, 0).expect("is let in");
    let new = NewToken {
        name: "bob".to_owned(),
        operator: None,
        grants: Grants::of_role("owner"),
        expires: None,
    };
    let (row, _) = operators::token(host, &admin, new, NOW)
        .await
        .expect("is made");
    assert_eq!(row.tenant, case.acme.id);
    let look = |conn: &Connection| tokens::makers(conn, case.acme.id, row.id);
    let makers = host.store.read(look).expect("reads");
    let found: Vec<_> = makers
        .iter()
        .map(|maker| (maker.operator, maker.name.as_str()))
        .collect();
    // As on the record of acme, which may have an `admin` of its own.
    assert_eq!(found, [(case.test.admin.operator, "provider/admin")]);
}

#[tokio::test]
async fn a_tenant_that_is_archived_can_be_looked_at_and_nothing_else() {
    let case = Case::new().await;
    let host = &case.test.host;
    case.grant("admin", "owner", End::Never)
        .await
        .expect("is granted");
    let refused = archive(host, &case.test.admin, "default", NOW).await;
    assert!(matches!(refused, Err(ProviderError::Own(_))), "{refused:?}");
    archive(host, &case.test.admin, "acme", NOW)
        .await
        .expect("is archived");
    let admin = case.there(&case.test.token, 0).expect("is let in");
    for permission in Permission::ALL {
        let is_looking = permission.as_str().starts_with("Read");
        assert_eq!(
            admin.require(*permission).is_ok(),
            is_looking,
            "{permission}"
        );
    }
    let more = case.grant("admin", "viewer", End::Never).await;
    assert!(matches!(more, Err(ProviderError::Archived(_))), "{more:?}");
}

#[tokio::test]
async fn a_new_name_breaks_no_chain_and_no_policy_comes_to_mean_another_tenant() {
    let case = Case::new().await;
    let host = &case.test.host;
    let text = "permit (principal, action, resource);
                forbid (principal, action, resource == Tenant::\"acme\");";
    let put = operators::put_role(host, &case.test.admin, "careful", text.to_owned(), NOW).await;
    put.expect("is a role");
    let named = rename(host, &case.test.admin, "acme", "zenith", NOW).await;
    assert!(
        matches!(&named, Err(ProviderError::NamedByRole { role, .. }) if role == "careful"),
        "{named:?}"
    );
    let removed = operators::remove_role(host, &case.test.admin, "careful".to_owned(), NOW).await;
    removed.expect("is removed");
    // What another customer calls by this name is its own affair.
    let (stranger, _) = case.test.stranger().await;
    let put = operators::put_role(host, &stranger, "careful", text.to_owned(), NOW).await;
    put.expect("is a role");
    let renamed = rename(host, &case.test.admin, "acme", "zenith", NOW).await;
    let zenith = renamed.expect("is renamed").tenant;
    assert_eq!((zenith.id, zenith.name.as_str()), (case.acme.id, "zenith"));
    audit::verify(&host.store, &zenith).await.expect("holds");
    let names: Vec<_> = case
        .events(&zenith)
        .into_iter()
        .map(|entry| entry.tenant)
        .collect();
    assert_eq!(names, ["acme", "zenith"]);
    // The old name is somebody else's.
    let again = create(host, &case.test.admin, "acme", NOW)
        .await
        .expect("is made");
    assert_ne!(again.tenant.id, zenith.id);
    let taken = create(host, &case.test.admin, "zenith", NOW).await;
    assert!(matches!(taken, Err(ProviderError::Taken(_))), "{taken:?}");
}

#[tokio::test]
async fn grants_end_with_their_operator_and_are_not_for_the_next_of_that_name() {
    let case = Case::new().await;
    let host = &case.test.host;
    let (_, tim) = case.test.with_roles("tim", &["viewer"]).await;
    case.grant("tim", "operator", End::Never)
        .await
        .expect("is granted");
    let removed = operators::remove(host, &case.test.admin, "tim".to_owned(), NOW).await;
    removed.expect("is removed");
    let got = case.there(&tim, 0);
    assert!(
        matches!(got, Err(AuthenticationError::Revoked { .. })),
        "{got:?}"
    );
    let (_, next) = case.test.with_roles("tim", &["viewer"]).await;
    assert!(is_no_tenant(case.there(&next, 0)));
    for tenant in [&case.acme, &case.test.tenant] {
        let events = case.events(tenant);
        let revoked = events.iter().filter(|entry| entry.event == "grant_revoked");
        assert_eq!(revoked.count(), 1, "{}", tenant.name);
    }
}

#[tokio::test]
async fn nobody_grants_more_than_they_have_and_only_the_provider_grants() {
    let case = Case::new().await;
    let host = &case.test.host;
    let (weak, _) = case.test.with_roles("weak", &["administrator"]).await;
    let new = || NewGrant {
        operator: "weak".to_owned(),
        tenant: "acme".to_owned(),
        roles: vec!["owner".to_owned()],
        end: End::Never,
    };
    let denied = add_grant(host, &weak, new(), NOW).await;
    assert!(
        matches!(denied, Err(ProviderError::Denied(_))),
        "{denied:?}"
    );
    let (stranger, _) = case.test.stranger().await;
    let denied = add_grant(host, &stranger, new(), NOW).await;
    assert!(
        matches!(denied, Err(ProviderError::NotTheProviders(_))),
        "{denied:?}"
    );
    let seen = |actor: &Actor| {
        let seen = host
            .store
            .read(|conn| visible(conn, actor, NOW))
            .expect("reads");
        let names = seen.into_iter().map(|row| row.tenant.name);
        names.collect::<Vec<_>>()
    };
    assert_eq!(seen(&stranger), ["other"]);
    assert_eq!(seen(&weak), ["acme", "default", "other"]);
    let (tim, _) = case.test.with_roles("tim", &["viewer"]).await;
    assert_eq!(seen(&tim), ["default"]);
    case.grant("tim", "viewer", End::Never)
        .await
        .expect("is granted");
    assert_eq!(seen(&tim), ["acme", "default"]);
}

impl Case {
    /// A version in the provider's library.
    async fn script(&self, text: &str) -> crate::library::VersionId {
        let new = serde_json::json!({"name": "fix", "script": ""});
        let mut new: sluice_api_types::script::AddScript =
            serde_json::from_value(new).expect("is a request");
        new.script = text.as_bytes().to_vec().into();
        let added = crate::library::add(&self.test.host, &self.test.admin, new, NOW).await;
        added.expect("is added").row.id
    }

    /// What acme would run of it.
    fn chosen(
        &self,
        tenant: &Tenant,
        version: Option<u64>,
    ) -> Result<u64, crate::library::ChooseError> {
        let script = sluice_api_types::script::ScriptRef {
            name: "provider/fix".to_owned(),
            version,
        };
        let choose = |conn: &Connection| crate::library::choose(conn, tenant.id, &script);
        Ok(self.test.host.store.read(choose)?.id.version)
    }
}

#[tokio::test]
async fn what_is_offered_may_be_run_as_it_is_until_it_is_withdrawn() {
    use crate::library::{ArchiveError, ChooseError, RedactError};
    let case = Case::new().await;
    let (host, admin) = (&case.test.host, &case.test.admin);
    let first = case.script("#!/bin/sh\necho 1\n").await;
    let second = case.script("#!/bin/sh\necho 2\n").await;
    let offer = async |version: &crate::library::VersionId, to: Option<&str>| {
        let to = to.map(|name| vec![name.to_owned()]);
        let made = add_offer(host, admin, version.clone(), to, NOW).await;
        made.expect("is offered")
    };
    assert!(matches!(
        case.chosen(&case.acme, None),
        Err(ChooseError::NoScript(_))
    ));
    let one = offer(&first, Some("acme")).await.pop().expect("one");
    assert!(offer(&first, Some("acme")).await.is_empty(), "not twice");
    // Never what is not offered, though the library has it and it is newer.
    assert_eq!(case.chosen(&case.acme, None).expect("may run"), 1);
    assert!(matches!(
        case.chosen(&case.acme, Some(2)),
        Err(ChooseError::NoVersion { .. })
    ));
    let (stranger, _) = case.test.stranger().await;
    assert!(matches!(
        case.chosen(&stranger.tenant, None),
        Err(ChooseError::NoScript(_))
    ));
    // To all is to those that come later, too.
    offer(&second, None).await;
    let late = create(host, admin, "late", NOW)
        .await
        .expect("is made")
        .tenant;
    for tenant in [&case.acme, &stranger.tenant, &late] {
        assert_eq!(
            case.chosen(tenant, None).expect("may run"),
            2,
            "{}",
            tenant.name
        );
    }
    // Nobody there changes it, or calls something like it.
    let archived = crate::library::archive(host, &stranger, "provider/fix", NOW).await;
    assert!(
        matches!(archived, Err(ArchiveError::Providers(_))),
        "{archived:?}"
    );
    let redacted = crate::library::redact(host, &stranger, "provider/fix", 2, NOW).await;
    assert!(
        matches!(redacted, Err(RedactError::Providers(_))),
        "{redacted:?}"
    );
    let new = serde_json::json!({"name": "provider/x", "script": "IyEvYmluL3NoCg=="});
    let new = serde_json::from_value(new).expect("is a request");
    let added = crate::library::add(host, &stranger, new, NOW).await;
    assert!(
        matches!(added, Err(crate::library::AddError::Providers(_))),
        "{added:?}"
    );
    // What is withdrawn is in the library still, and does not run.
    withdraw_offer(host, admin, &one.id.to_string(), NOW)
        .await
        .expect("is withdrawn");
    assert!(matches!(
        case.chosen(&case.acme, Some(1)),
        Err(ChooseError::NotOffered(_))
    ));
    let gone = withdraw_offer(host, admin, &one.id.to_string(), NOW).await;
    assert!(matches!(gone, Err(ProviderError::NoOffer(_))), "{gone:?}");
    let events: Vec<_> = case
        .events(&case.acme)
        .into_iter()
        .map(|entry| entry.event)
        .collect();
    let offers = ["script_offered", "script_offered", "script_offer_withdrawn"];
    assert_eq!(events[events.len() - 3..], offers);
    let refused = add_offer(host, &stranger, first, None, NOW).await;
    assert!(
        matches!(refused, Err(ProviderError::NotTheProviders(_))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn what_the_provider_redacts_or_archives_is_gone_for_its_customers() {
    use crate::library::ChooseError;
    let case = Case::new().await;
    let (host, admin) = (&case.test.host, &case.test.admin);
    let first = case.script("#!/bin/sh\necho 1\n").await;
    let second = case.script("#!/bin/sh\necho 2\n").await;
    for version in [&first, &second] {
        let made = add_offer(host, admin, version.clone(), None, NOW).await;
        made.expect("is offered");
    }
    let redacted = crate::library::redact(host, admin, "fix", 1, NOW).await;
    redacted.expect("is redacted");
    assert!(matches!(
        case.chosen(&case.acme, Some(1)),
        Err(ChooseError::Redacted(_))
    ));
    let copy = crate::library::VersionId {
        name: first.name.in_others(),
        version: 1,
    };
    let text = |conn: &Connection| store::scripts::text(conn, case.acme.id, &copy);
    assert_eq!(host.store.read(text).expect("reads"), None);
    assert_eq!(case.chosen(&case.acme, None).expect("may run"), 2);
    // Not what a customer redacts: of the same bytes its own goes, and what is offered stays.
    let bob = case.bob().await;
    let new = serde_json::json!({"name": "own", "script": ""});
    let mut new: sluice_api_types::script::AddScript =
        serde_json::from_value(new).expect("is a request");
    new.script = b"#!/bin/sh\necho 2\n".to_vec().into();
    let added = crate::library::add(host, &bob, new, NOW).await;
    added.expect("is added");
    let redacted = crate::library::redact(host, &bob, "own", 1, NOW).await;
    let names = redacted.expect("is redacted").redacted;
    let names: Vec<_> = names.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["own@1"]);
    assert_eq!(case.chosen(&case.acme, None).expect("may run"), 2);
    let archived = crate::library::archive(host, admin, "fix", NOW).await;
    archived.expect("is archived");
    assert!(matches!(
        case.chosen(&case.acme, None),
        Err(ChooseError::NotOffered(_))
    ));
}
