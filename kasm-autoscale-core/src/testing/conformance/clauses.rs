//! The clauses of the contract, as the kit names them.

use core::fmt;

macro_rules! clauses {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $title:literal;)*) => {
        /// A clause of the contract of a [`VmProvider`](crate::ports::VmProvider), which
        /// [`ports`](crate::ports) words in full.
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub enum Clause {
            $($(#[$doc])* #[doc = concat!($code, ": ", $title, ".")] $name,)*
        }

        impl Clause {
            /// Every clause, in the order in which they are checked.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Its number in the contract: `C-04`.
            pub const fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// What it is about, in a few words.
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }
        }
    };
}

clauses! {
    Description = "C-01", "the description never changes";
    Check = "C-02", "settings are checked without asking anybody";
    Preflight = "C-03", "a preflight only reads";
    OneMachine = "C-04", "the same create again is the same machine";
    OtherRequest = "C-05", "another request with the same token makes no machine";
    Mark = "C-06", "the mark is put on by the call that makes the machine";
    Acceptance = "C-07", "create answers at acceptance, and its answer leads to the machine";
    Life = "C-08", "a machine that runs has an address";
    LostBefore = "C-09", "a reply lost before the effect";
    LostAfter = "C-10", "a reply lost after the effect";
    LateVisibility = "C-11", "late visibility keeps within the lag";
    Absence = "C-12", "nothing there is an answer, not an error";
    FailedRead = "C-13", "a read that fails is an error, not an empty answer";
    PartialList = "C-14", "a list that is not whole does not say it is complete";
    WholeList = "C-15", "a complete list shows every machine of the pool, and no other pool's";
    Foreign = "C-16", "foreign machines are not ours, and are left alone";
    DeleteTwice = "C-17", "what is gone, or never was, counts as deleted";
    SlowDelete = "C-18", "a machine counts as deleted when it is gone, not before";
    Leftovers = "C-19", "nothing of a deleted machine is left";
    Throttle = "C-20", "throttling is reported, not hidden";
    Quota = "C-21", "a quota is told from a shortage";
    NoCapacity = "C-22", "a shortage is told from a quota";
    DiesBooting = "C-23", "a machine that dies while it boots is shown as dead";
    LostMark = "C-24", "a machine that loses its mark is no longer shown as ours";
    UnknownState = "C-25", "a state nobody knows is reported as it is";
    Secrets = "C-26", "no secret comes out";
}

impl fmt::Display for Clause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code(), self.title())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The contract and the kit are one list.
    #[test]
    fn every_clause_stands_in_the_contract() {
        let contract = include_str!("../../ports.rs");
        let stated = contract.lines().filter(|line| line.starts_with("//! - **C-"));
        let codes = stated.filter_map(|line| line.strip_prefix("//! - **")?.get(..4)).collect::<alloc::vec::Vec<_>>();
        let kit = Clause::ALL.iter().map(|clause| clause.code()).collect::<alloc::vec::Vec<_>>();
        assert_eq!(codes, kit);
    }
}
