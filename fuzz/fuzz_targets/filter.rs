//! A search filter that is read comes back from its own text, what it is filled with stays a value, and no text makes the reader panic.
#![no_main]

use kasm_ad::Filter;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|texts: (&str, &str)| {
    let (text, value) = texts;
    if let Ok(filter) = text.parse::<Filter>() {
        assert_eq!(filter.to_string().parse::<Filter>().as_ref(), Ok(&filter));
    }
    let filled = Filter::equals("cn", "{username}").filled("{username}", value);
    assert_eq!(filled.to_string().parse::<Filter>(), Ok(Filter::equals("cn", value)));
});
