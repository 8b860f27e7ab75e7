//! No text makes the script reader panic, and no value changes what stands around it.
#![no_main]

use std::collections::BTreeMap;

use kasm_autoscale_core::script::{Script, Variable};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &str)| {
    let (text, value) = input;
    let Ok(script) = Script::parse(text) else { return };
    let values: BTreeMap<Variable, _> = Variable::ALL.iter().map(|variable| (*variable, value.to_owned().into())).collect();
    // A value that cannot stand where it is used is refused; it must not panic, and it is never read as a template again.
    let first = script.render(&values).is_ok();
    assert_eq!(first, script.render(&values).is_ok());
    assert_eq!(Script::parse(script.source()).as_ref(), Ok(&script));
});
