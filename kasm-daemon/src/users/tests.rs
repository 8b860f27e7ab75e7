use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

/// Knows one user, and counts how often it is asked.
struct Fake {
    domain: &'static str,
    asked: AtomicU32,
}

#[async_trait]
impl Authenticator for Fake {
    fn domain(&self) -> String {
        self.domain.into()
    }

    async fn authenticate(&self, username: &str, password: &SecretString) -> Result<Identity, AuthenticateError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        match (username.split('@').next().unwrap_or_default(), password.expose_secret()) {
            (_, "down") => Err(AuthenticateError::Unavailable("on purpose".into())),
            ("Ann" | "ann" | "bob", "right") => Ok(Identity {
                account: username.split('@').next().unwrap_or_default().into(),
                groups: vec!["CN=g".into()],
            }),
            _ => Err(AuthenticateError::Refused("on purpose".into())),
        }
    }
}

fn rules() -> LoginRules {
    LoginRules {
        failure_delay: Duration::ZERO,
        throttle: ThrottleRules { per_user: 3, per_address: 100, window: Duration::from_secs(3600) },
        ..LoginRules::default()
    }
}

fn users_of(rules: LoginRules, domains: &[(&'static str, &'static str, bool)]) -> (Users, Vec<Arc<Fake>>) {
    let mut realms = BTreeMap::new();
    let mut fakes = vec![];
    for (name, domain, enabled) in domains {
        let fake = Arc::new(Fake { domain, asked: AtomicU32::new(0) });
        fakes.push(fake.clone());
        realms.insert(name.parse().expect("a name"), Realm { authenticator: fake, enabled: *enabled, calls: 4 });
    }
    (Users::new(Clock::start(), rules, realms), fakes)
}

fn wish(ldap: Option<&str>, username: &str, password: &str) -> LoginWish {
    LoginWish {
        ldap: ldap.map(|name| name.parse().expect("a name")),
        username: username.into(),
        password: SecretString::from(password.to_owned()),
        address: None,
    }
}

#[tokio::test]
async fn a_token_is_good_until_its_login_ends() {
    let (users, _) = users_of(rules(), &[("corp", "corp.example", true)]);
    let (token, login) = users.log_in(wish(None, "Ann", "right")).await.expect("a login");
    let token = token.expose_secret();
    assert_eq!((login.user().as_str(), login.ldap().as_str()), ("ann@corp.example", "corp"));
    assert_eq!(login.password().expose_secret(), "right");
    assert!(Users::is_token(token) && token.len() == TOKEN_PREFIX.len() + 43);
    assert!(users.holder(token).is_some_and(|holder| Arc::ptr_eq(&holder, &login)));
    for wrong in ["", "x", &token[..token.len() - 1], &format!("{token}x"), &token.replace(TOKEN_PREFIX, "kasm_a_")] {
        assert!(users.holder(wrong).is_none(), "{wrong}");
    }
    let (other, _) = users.log_in(wish(Some("corp"), "bob@CORP.example", "right")).await.expect("a login");
    users.log_out(token);
    assert!(users.holder(token).is_none() && users.holder(other.expose_secret()).is_some());
    assert_eq!(Arc::strong_count(&login), 1, "nobody else keeps the password");
    assert!(!format!("{login:?} {users:?}").contains("right"));
}

#[tokio::test]
async fn a_login_ends_when_it_is_not_used_and_at_its_longest() {
    let millis = Duration::from_millis;
    let (users, _) = users_of(LoginRules { idle: millis(400), ..rules() }, &[("corp", "corp.example", true)]);
    let (token, _) = users.log_in(wish(None, "ann", "right")).await.expect("a login");
    sleep(millis(600)).await;
    assert!(users.holder(token.expose_secret()).is_none(), "nobody has used it");
    let brief = LoginRules { idle: Duration::from_secs(60), longest: millis(400), ..rules() };
    let (users, _) = users_of(brief, &[("corp", "corp.example", true)]);
    let (token, login) = users.log_in(wish(None, "ann", "right")).await.expect("a login");
    drop(users.holder(token.expose_secret()));
    assert!(login.expires_at() <= login.since + millis(400));
    let stop = CancellationToken::new();
    let users = Arc::new(users);
    let sweeper = tokio::spawn({
        let (users, stop) = (users.clone(), stop.clone());
        async move { users.sweep(stop).await }
    });
    while users.count() > 0 {
        sleep(millis(50)).await;
    }
    assert_eq!(Arc::strong_count(&login), 1, "its password goes though nobody asks for it");
    users.log_in(wish(None, "ann", "right")).await.expect("a login");
    stop.cancel();
    sweeper.await.expect("it ends");
    assert_eq!(users.count(), 0, "all passwords go when the daemon ends");
}

#[tokio::test]
async fn failures_are_alike_and_few() {
    let (users, fakes) = users_of(rules(), &[("corp", "corp.example", true)]);
    for (name, password) in
        [("ann", "wrong"), ("nobody", "x"), ("ann", ""), ("", "right"), ("a\0", "right"), ("bob", "a\0")]
    {
        let error = users.log_in(wish(None, name, password)).await.expect_err(name);
        assert_eq!(error.to_string(), LoginError::Refused.to_string(), "{name:?} {password:?}");
    }
    assert_eq!(fakes[0].asked.load(Ordering::Relaxed), 2, "what is no name or no password is asked of nobody");
    // The directory's fault counts for nothing.
    for _ in 0..10 {
        let error = users.log_in(wish(None, "bob", "down")).await.expect_err("down");
        assert!(matches!(error, LoginError::Unavailable));
    }
    assert!(matches!(users.log_in(wish(None, "ann@corp.example", "wrong")).await, Err(LoginError::Refused)));
    let error = users.log_in(wish(None, "ANN", "right")).await.expect_err("the fourth");
    assert!(matches!(error, LoginError::TooMany(wait) if wait > Duration::from_secs(3000)), "{error:?}");
    users.log_in(wish(None, "bob", "right")).await.expect("another user may");
}

#[tokio::test]
async fn an_answer_to_a_failure_takes_its_time() {
    let slow = LoginRules { failure_delay: Duration::from_millis(300), ..rules() };
    let (users, _) = users_of(slow, &[("corp", "corp.example", true)]);
    for (name, password) in [("ann", "wrong"), ("ann", "")] {
        let started = users.clock.now();
        users.log_in(wish(None, name, password)).await.expect_err(name);
        assert!(users.clock.now().since(started) >= Duration::from_millis(300));
    }
}

#[tokio::test]
async fn the_ldap_config_is_the_one_that_is_meant() {
    let all = [("a", "a.example", true), ("b", "b.example", true), ("computers", "c.example", false)];
    let (users, fakes) = users_of(rules(), &all);
    for (ldap, name, wanted) in [
        (Some("b"), "ann", Some("ann@b.example")),
        (None, "ann@A.example", Some("ann@a.example")),
        (None, "ann", None),
        (None, "ann@c.example", None),
        (Some("computers"), "ann", None),
        (Some("none"), "ann", None),
    ] {
        match (users.log_in(wish(ldap, name, "right")).await, wanted) {
            (Ok((_, login)), Some(wanted)) => assert_eq!(login.user().as_str(), wanted),
            (Err(LoginError::Ldap(problem)), None) => assert_eq!(problem.path, "ldap"),
            (other, _) => panic!("{ldap:?} {name}: {other:?}"),
        }
    }
    assert_eq!(fakes[2].asked.load(Ordering::Relaxed), 0);
    let (nobody, _) = users_of(rules(), &[("computers", "c.example", false)]);
    assert!(matches!(nobody.log_in(wish(None, "ann", "right")).await, Err(LoginError::Ldap(_))));
}

#[tokio::test]
async fn one_user_has_so_many_logins_and_no_more() {
    let (users, _) = users_of(rules(), &[("corp", "corp.example", true)]);
    let mut tokens = vec![];
    for _ in 0..=LOGINS_PER_USER {
        tokens.push(users.log_in(wish(None, "ann", "right")).await.expect("a login").0);
        // So that the clock tells them apart.
        sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(users.count(), LOGINS_PER_USER);
    assert!(users.holder(tokens[0].expose_secret()).is_none(), "the oldest one has ended");
    assert!(users.holder(tokens[LOGINS_PER_USER].expose_secret()).is_some());
}
