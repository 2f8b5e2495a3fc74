//! Which children an owner may call its own (upstream: the controller-ref manager's protocol).

use crate::{Meta, Selector};

/// What to do about one candidate child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is ours and matches.
    Keep,
    /// An orphan that matches: take it, after a live read has confirmed that the owner still exists.
    Adopt,
    /// Ours, but it no longer matches: let it go.
    Release,
    /// None of our business.
    Ignore,
}

/// Judges `child` for the owner `owner`.
pub fn claim(owner: &Meta, selector: &Selector, child: &Meta) -> Claim {
    let matches = selector.matches(&child.labels);
    match &child.controller {
        Some(controller) if *controller == owner.uid => match matches {
            true => Claim::Keep,
            // An owner that is being deleted leaves its children to the garbage collector.
            false if owner.is_terminating() => Claim::Ignore,
            false => Claim::Release,
        },
        Some(_) => Claim::Ignore,
        // It would select everything: no valid spec asks for that.
        None if selector.is_empty() => Claim::Ignore,
        None if !matches || owner.is_terminating() || child.is_terminating() => Claim::Ignore,
        None if child.key.namespace != owner.key.namespace => Claim::Ignore,
        None => Claim::Adopt,
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::Uid;

    fn meta(name: &str, app: &str, controller: Option<&str>, deleting: bool) -> Meta {
        let mut meta: Meta = serde_json::from_value(serde_json::json!({
            "name": name, "namespace": "shop", "uid": format!("uid-{name}"), "labels": {"app": app},
        }))
        .unwrap();
        meta.controller = controller.map(Uid::from);
        meta.deleted = deleting.then_some(Timestamp::UNIX_EPOCH);
        meta
    }

    #[test]
    fn the_matrix() {
        let selector = Selector::from_labels([("app", "web")].into_iter().collect());
        // (owner deleting, child's app, child's controller, child deleting, verdict)
        for (owner_deleting, app, controller, child_deleting, verdict) in [
            (false, "web", Some("uid-own"), false, Claim::Keep),
            (false, "web", Some("uid-own"), true, Claim::Keep),
            (false, "db", Some("uid-own"), false, Claim::Release),
            (true, "db", Some("uid-own"), false, Claim::Ignore),
            (false, "web", Some("uid-other"), false, Claim::Ignore),
            (false, "web", None, false, Claim::Adopt),
            (false, "web", None, true, Claim::Ignore),
            (true, "web", None, false, Claim::Ignore),
            (false, "db", None, false, Claim::Ignore),
        ] {
            let owner = meta("own", "web", None, owner_deleting);
            let child = meta("child", app, controller, child_deleting);
            assert_eq!(claim(&owner, &selector, &child), verdict, "{child:?}");
        }
    }

    #[test]
    fn nothing_is_adopted_across_namespaces() {
        let selector = Selector::from_labels([("app", "web")].into_iter().collect());
        let mut child = meta("child", "web", None, false);
        child.key.namespace = "elsewhere".into();
        assert_eq!(claim(&meta("own", "web", None, false), &selector, &child), Claim::Ignore);
    }

    /// It would take every orphan of the namespace.
    #[test]
    fn an_empty_selector_adopts_nothing() {
        let child = meta("child", "web", None, false);
        assert_eq!(claim(&meta("own", "web", None, false), &Selector::default(), &child), Claim::Ignore);
        let own = meta("child", "web", Some("uid-own"), false);
        assert_eq!(claim(&meta("own", "web", None, false), &Selector::default(), &own), Claim::Keep);
    }
}
