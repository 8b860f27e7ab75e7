//! Names and types of the members of a RunInstances request.
//!
//! Source: `run_instances_names.txt`; its provenance is in the `README.md` beside it.

/// A table of structures: one line per member, `structure member wire-name type`.
#[derive(Clone, Copy)]
pub(super) struct Names(pub(super) &'static str);

/// The structures of RunInstances, API version 2016-11-15.
pub(super) const RUN_INSTANCES: Names = Names(include_str!("run_instances_names.txt"));

/// The structure at the root of [`RUN_INSTANCES`].
pub(super) const REQUEST: &str = "RunInstancesRequest";

/// What a member is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Text,
    Integer,
    Boolean,
    /// A time as RFC 3339 text.
    Time,
    Structure(&'static str),
    /// A list, by the name of what it holds. Lists of lists do not occur.
    List(&'static str),
}

impl Kind {
    pub(super) fn named(name: &'static str) -> Self {
        match name {
            "string" => Self::Text,
            "integer" => Self::Integer,
            "boolean" => Self::Boolean,
            "timestamp" => Self::Time,
            list if list.starts_with('[') => Self::List(list.trim_matches(['[', ']'])),
            structure => Self::Structure(structure),
        }
    }
}

/// One member of a structure.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Member {
    pub(super) name: &'static str,
    pub(super) wire: &'static str,
    pub(super) kind: Kind,
}

impl Names {
    /// The members of a structure. The table is short, and read only when a config is checked or a machine is made.
    pub(super) fn members(self, structure: &str) -> impl Iterator<Item = Member> {
        self.0.lines().filter(|line| !line.starts_with('#')).filter_map(move |line| {
            let mut words = line.split(' ');
            (words.next()? == structure).then_some(())?;
            Some(Member { name: words.next()?, wire: words.next()?, kind: Kind::named(words.next()?) })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_read_and_every_structure_is_there() {
        let lines: Vec<&str> = RUN_INSTANCES.0.lines().filter(|line| !line.starts_with('#')).collect();
        let mut structures: Vec<&str> = lines.iter().filter_map(|line| line.split(' ').next()).collect();
        structures.dedup();
        let all: Vec<Member> = structures.iter().flat_map(|structure| RUN_INSTANCES.members(structure)).collect();
        assert_eq!(all.len(), lines.len());
        for member in all {
            let inner = match member.kind {
                Kind::List(item) => Kind::named(item),
                other => other,
            };
            match inner {
                Kind::Structure(name) => assert!(RUN_INSTANCES.members(name).next().is_some(), "{name} has no members"),
                Kind::List(_) => panic!("{} is a list of lists", member.name),
                _ => (),
            }
        }
    }

    #[test]
    fn wire_names_follow_the_location_names() {
        let wire = |structure: &str, name: &str| {
            RUN_INSTANCES.members(structure).find(|member| member.name == name).map(|member| member.wire)
        };
        assert_eq!(wire(REQUEST, "SecurityGroupIds"), Some("SecurityGroupId"));
        assert_eq!(wire(REQUEST, "NetworkInterfaces"), Some("NetworkInterface"));
        assert_eq!(wire(REQUEST, "EbsOptimized"), Some("EbsOptimized"));
        assert_eq!(wire("InstanceNetworkInterfaceSpecification", "Groups"), Some("SecurityGroupId"));
        assert_eq!(wire(REQUEST, "Tags"), None);
    }
}
