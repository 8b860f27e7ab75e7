use kasm_autoscale_core::ports::Certainty::{NotApplied, Unknown};
use kasm_autoscale_core::ports::DirectoryErrorKind as Kind;
use kasm_autoscale_core::ports::Scope::{Offering, Provider, Server};

use super::{Failure, Step, TABLE, clean, explained};

/// What callers build on, row by row: the code of RFC 4511 appendix A.2, and what it lets the core do.
#[test]
fn every_result_code_has_a_name_a_kind_a_scope_and_a_certainty() {
    let rows = [
        (1, "operationsError", Kind::Transient, Provider, Unknown),
        (2, "protocolError", Kind::Invalid, Provider, NotApplied),
        (3, "timeLimitExceeded", Kind::Transient, Provider, Unknown),
        (4, "sizeLimitExceeded", Kind::Quota, Provider, NotApplied),
        (7, "authMethodNotSupported", Kind::Invalid, Provider, NotApplied),
        (8, "strongerAuthRequired", Kind::Invalid, Provider, NotApplied),
        (10, "referral", Kind::Invalid, Offering, NotApplied),
        (11, "adminLimitExceeded", Kind::Quota, Provider, Unknown),
        (12, "unavailableCriticalExtension", Kind::Invalid, Provider, NotApplied),
        (13, "confidentialityRequired", Kind::Invalid, Provider, NotApplied),
        (14, "saslBindInProgress", Kind::Invalid, Provider, NotApplied),
        (16, "noSuchAttribute", Kind::Invalid, Offering, NotApplied),
        (17, "undefinedAttributeType", Kind::Invalid, Offering, NotApplied),
        (18, "inappropriateMatching", Kind::Invalid, Offering, NotApplied),
        (19, "constraintViolation", Kind::Invalid, Server, NotApplied),
        (20, "attributeOrValueExists", Kind::Invalid, Server, NotApplied),
        (21, "invalidAttributeSyntax", Kind::Invalid, Server, NotApplied),
        (32, "noSuchObject", Kind::Invalid, Offering, NotApplied),
        (33, "aliasProblem", Kind::Invalid, Offering, NotApplied),
        (34, "invalidDNSyntax", Kind::Invalid, Offering, NotApplied),
        (36, "aliasDereferencingProblem", Kind::Invalid, Offering, NotApplied),
        (48, "inappropriateAuthentication", Kind::Denied, Provider, NotApplied),
        (49, "invalidCredentials", Kind::Denied, Provider, NotApplied),
        (50, "insufficientAccessRights", Kind::Denied, Offering, NotApplied),
        (51, "busy", Kind::Throttled, Provider, NotApplied),
        (52, "unavailable", Kind::Transient, Provider, NotApplied),
        (53, "unwillingToPerform", Kind::Invalid, Server, NotApplied),
        (54, "loopDetect", Kind::Transient, Provider, NotApplied),
        (64, "namingViolation", Kind::Invalid, Offering, NotApplied),
        (65, "objectClassViolation", Kind::Invalid, Offering, NotApplied),
        (66, "notAllowedOnNonLeaf", Kind::HasChildren, Server, NotApplied),
        (67, "notAllowedOnRDN", Kind::Invalid, Server, NotApplied),
        (68, "entryAlreadyExists", Kind::NameTaken, Server, NotApplied),
        (69, "objectClassModsProhibited", Kind::Invalid, Server, NotApplied),
        (71, "affectsMultipleDSAs", Kind::Invalid, Offering, NotApplied),
        (80, "other", Kind::Transient, Provider, Unknown),
        (112, "tlsNotSupported", Kind::Invalid, Provider, NotApplied),
        (118, "canceled", Kind::Transient, Provider, NotApplied),
    ];
    assert_eq!(rows.len(), TABLE.len(), "a row without a test");
    for (code, name, kind, scope, certainty) in rows {
        for step in [Step::Connect, Step::Bind, Step::Search, Step::Add, Step::Delete] {
            let error = explained(step, &Failure::Code(code, "the words of the server".to_owned()));
            assert_eq!(
                (error.code.as_str(), error.kind, error.scope, error.certainty),
                (name, kind, scope, certainty),
                "{code}"
            );
            assert!(error.message.contains("the words of the server"), "{error}");
        }
    }
}

#[test]
fn a_code_that_nobody_knows_may_have_been_done_and_may_pass() {
    for code in (0..300).filter(|code| TABLE.iter().all(|row| row.0 != *code)) {
        let error = explained(Step::Add, &Failure::Code(code, String::new()));
        assert_eq!((error.kind, error.scope, error.certainty), (Kind::Transient, Provider, Unknown));
        assert_eq!(error.code, format!("resultCode{code}"));
    }
}

#[test]
fn without_an_answer_only_reading_is_known_to_have_done_nothing() {
    let failures = [
        (Failure::TimedOut, "timedOut"),
        (Failure::Network("broken".to_owned()), "connection"),
        (Failure::Malformed("odd".to_owned()), "malformedAnswer"),
    ];
    for (failure, code) in failures {
        for (step, certainty) in [
            (Step::Connect, NotApplied),
            (Step::Bind, NotApplied),
            (Step::Search, NotApplied),
            (Step::Add, Unknown),
            (Step::Delete, Unknown),
        ] {
            let error = explained(step, &failure);
            assert_eq!(
                (error.kind, error.scope, error.certainty, error.code.as_str()),
                (Kind::Transient, Provider, certainty, code)
            );
        }
    }
    let error = explained(Step::Connect, &Failure::Tls("not trusted".to_owned()));
    assert_eq!((error.kind, error.certainty, error.code.as_str()), (Kind::Invalid, NotApplied, "tls"));
}

#[test]
fn not_a_leaf_names_the_setting_that_helps() {
    let error = explained(Step::Delete, &Failure::Code(66, String::new()));
    assert!(error.message.contains("`ad_recursive_cleanup = true`"), "{error}");
}

#[test]
fn texts_from_outside_are_one_line_without_secrets() {
    assert_eq!(clean("00002071: x\0\r\nfake line\u{1b}[31m\u{202e}\t end", None), "00002071: x fake line [31m end");
    assert_eq!(clean("no Pa55word here, Pa55word", Some("Pa55word")), "no [secret] here, [secret]");
    assert_eq!(clean("as it is", Some("")), "as it is");
    assert_eq!(clean(&"ä".repeat(1000), None).chars().count(), 240);
}
