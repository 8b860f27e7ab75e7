#[test]
fn tmp() {
    for (name, seed, index) in [("facts", 8, 38), ("facts", 9, 8)] {
        let target = kasm_fuzz::targets::ALL.iter().find(|t| t.name == name).unwrap();
        let mut generator = kasm_fuzz::generator::Generator::new(target, seed);
        let mut input = vec![];
        for _ in 0..=index {
            input = generator.next_input();
        }
        std::fs::write(format!("/tmp/t/in-{name}-{seed}-{index}"), input).unwrap();
    }
}
