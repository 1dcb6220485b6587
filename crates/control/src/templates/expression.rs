//! CEL expressions of templates, with a bound on what they cost, over variables that are JSON values. Pure, no I/O.

use std::collections::BTreeSet;

use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue};
use cel::objects::Key;
use cel::{Context, Program, Value as Cel};
use serde_json::{Map, Value, json};

/// Longest expression, in bytes.
const MAX_BYTES: usize = 2_000;
/// Most brackets and conditions `?` in one another, and most operators. The parser recurses for each of the former, and the
/// evaluation for all.
const MAX_DEPTH: usize = 24;
const MAX_OPERATORS: usize = 100;
/// Stack for an expression, in bytes: four times what the deepest takes without optimisation.
const STACK: usize = 16 << 20;
/// Most steps of one evaluation, as estimated before it.
const MAX_STEPS: u64 = 1_000_000;
/// Most values in a result, those inside of others included.
const MAX_VALUES: usize = 100_000;
/// Bytes of a text that count as one step.
const BYTES_PER_STEP: usize = 32;

/// A compiled expression.
pub struct Expression {
    program: Program,
    /// The variables that it uses, without those that its macros bind.
    variables: BTreeSet<String>,
    cost: Cost,
    /// Number of literals and additions, which make lists longer than those of the variables.
    literals: u64,
    additions: u64,
}

/// Number of steps as a polynomial in the length of the longest list: the factor of each power, from 0.
#[derive(Clone, Default)]
struct Cost(Vec<u64>);

impl Cost {
    fn add(&mut self, power: usize, steps: u64) {
        self.0.resize(self.0.len().max(power + 1), 0);
        self.0[power] = self.0[power].saturating_add(steps);
    }

    /// Number of steps with lists of this length.
    fn at(&self, length: u64) -> u64 {
        self.0.iter().rev().fold(0, |sum: u64, steps| sum.saturating_mul(length).saturating_add(*steps))
    }
}

/// The variables of an evaluation.
#[derive(Default)]
pub struct Variables {
    context: Context<'static, 'static>,
    size: u64,
}

impl Variables {
    /// Sets a variable.
    pub fn set(&mut self, name: &str, value: &Value) {
        self.size += size(value);
        self.context.add_variable_from_value(name, cel(value));
    }
}

impl Expression {
    /// Compiles an expression. Returns the fault of an invalid one.
    pub fn compile(text: &str) -> Result<Self, String> {
        if text.len() > MAX_BYTES {
            return Err(format!("must have at most {MAX_BYTES} bytes"));
        }
        if let Some(why) = nesting_fault(text) {
            return Err(why);
        }
        on_own_stack(|| {
            let program = Program::compile(text).map_err(|why| format!("is not a CEL expression: {why}"))?;
            let mut found = CostVisitor::default();
            found.walk(program.expression(), 0);
            let CostVisitor { variables, cost, literals, additions, runs_over_map, .. } = found;
            if runs_over_map {
                return Err(
                    "must not use a macro over the result of `map`: give `map` its condition".to_owned()
                );
            }
            Ok(Self { program, variables, cost, literals, additions })
        })
    }

    /// Names of the variables that it uses, sorted.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        self.variables.iter().map(String::as_str)
    }

    /// Evaluates the expression. Returns why it has no value, or none that JSON has. One whose loops would take too many
    /// steps for variables of this size is not evaluated.
    pub fn evaluate(&self, variables: &Variables) -> Result<Value, String> {
        let longest = (variables.size.saturating_add(self.literals)).saturating_mul(self.additions + 1);
        if self.cost.at(longest) > MAX_STEPS {
            return Err("takes too many steps for values of this size".to_owned());
        }
        on_own_stack(|| {
            let value = self.program.execute(&variables.context).map_err(|why| why.to_string())?;
            plain(&value, &mut MAX_VALUES.clone())
        })
    }
}

/// Runs this in a thread of its own, because the library may panic, and takes some 100 KiB of the stack for each bracket and 20
/// for each operator.
fn on_own_stack<T: Send>(work: impl FnOnce() -> Result<T, String> + Send) -> Result<T, String> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work);
        let done = thread.map_err(|why| format!("cannot be evaluated now: {why}"))?.join();
        done.unwrap_or_else(|_| Err("cannot be evaluated".to_owned()))
    })
}

/// Returns the fault of an expression that is nested too deeply.
fn nesting_fault(text: &str) -> Option<String> {
    let code = outside_texts(text);
    let words = code.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let (mut deepest, mut operators) = (0, words.filter(|word| *word == "in").count());
    // The conditions in each bracket that is open.
    let mut open = vec![0];
    let mut before = ' ';
    for character in code.chars() {
        match (character, open.last_mut()) {
            ('(' | '[' | '{', _) => open.push(0),
            (')' | ']' | '}', _) => _ = open.pop(),
            (',', Some(conditions)) => *conditions = 0,
            ('?', Some(conditions)) => *conditions += 1,
            ('=' | '&' | '|', _) if "=!<>&|".contains(before) => {}
            ('.' | '!' | '-' | '+' | '*' | '/' | '%' | '&' | '|' | '<' | '>' | '=', _) => operators += 1,
            _ => {}
        }
        before = character;
        deepest = deepest.max(open.len() + open.iter().sum::<usize>());
    }
    let is_too_much = deepest > MAX_DEPTH + 1 || operators > MAX_OPERATORS;
    is_too_much.then(|| {
        format!(
            "must have at most {MAX_DEPTH} brackets and conditions in one another, and {MAX_OPERATORS} operators"
        )
    })
}

/// The expression without its texts and comments.
fn outside_texts(text: &str) -> String {
    let (mut code, mut rest) = (String::new(), text);
    while let Some(next) = rest.chars().next() {
        if rest.starts_with("//") {
            rest = rest.split_once('\n').map_or("", |(_, after)| after);
            continue;
        }
        if next != '\'' && next != '"' {
            code.push(next);
            rest = rest.get(next.len_utf8()..).unwrap_or_default();
            continue;
        }
        let is_raw = code.ends_with(['r', 'R']);
        let (single, triple) = (next.to_string(), next.to_string().repeat(3));
        let quote = if rest.starts_with(&triple) { triple } else { single };
        rest = rest.get(quote.len()..).unwrap_or_default();
        let mut inside = rest.char_indices();
        let end = loop {
            match inside.next() {
                None => break rest.len(),
                Some((_, '\\')) if !is_raw => _ = inside.next(),
                Some((at, _)) if rest.get(at..).is_some_and(|it| it.starts_with(&quote)) => {
                    break at + quote.len();
                }
                Some(_) => {}
            }
        };
        code.push(' ');
        rest = rest.get(end..).unwrap_or_default();
    }
    code
}

/// A walk through the syntax tree.
#[derive(Default)]
struct CostVisitor<'a> {
    /// Variables that the macros around the current expression bind.
    bound: Vec<&'a str>,
    variables: BTreeSet<String>,
    cost: Cost,
    literals: u64,
    additions: u64,
    /// Number of macros so far that make lists of other elements than those of their range.
    maps: u64,
    /// Whether a macro runs over such a list, which may be much longer than the variables.
    runs_over_map: bool,
}

impl<'a> CostVisitor<'a> {
    /// Walks through an expression inside of this many macros.
    fn walk(&mut self, node: &'a IdedExpr, loops: usize) {
        self.cost.add(loops, 1);
        match &node.expr {
            Expr::Unspecified => {}
            Expr::Literal(_) => self.literals += 1,
            Expr::Ident(name) => {
                if !self.bound.contains(&name.as_str()) {
                    self.variables.insert(name.clone());
                    // It is copied.
                    self.cost.add(loops + 1, 1);
                }
            }
            Expr::Call(call) => {
                let is_addition = call.func_name == "_+_" && !call.args.iter().any(is_scalar);
                if is_addition && !call.args.iter().any(|it| self.is_accumulated(it)) {
                    self.additions += 1;
                }
                if is_addition || reads_all(call) {
                    self.cost.add(loops + 1, 1);
                }
                call.target.iter().for_each(|target| self.walk(target, loops));
                call.args.iter().for_each(|argument| self.walk(argument, loops));
            }
            Expr::Select(select) => self.walk(&select.operand, loops),
            Expr::List(list) => list.elements.iter().for_each(|element| self.walk(element, loops)),
            Expr::Map(map) => map.entries.iter().for_each(|entry| self.entry(&entry.expr, loops)),
            Expr::Struct(of) => of.entries.iter().for_each(|entry| self.entry(&entry.expr, loops)),
            Expr::Comprehension(of) => self.comprehension(of, loops),
        }
    }

    fn entry(&mut self, entry: &'a EntryExpr, loops: usize) {
        match entry {
            EntryExpr::StructField(field) => self.walk(&field.value, loops),
            EntryExpr::MapEntry(entry) => {
                self.walk(&entry.key, loops);
                self.walk(&entry.value, loops);
            }
        }
    }

    /// The expression of a macro, in which its own variables are bound.
    fn comprehension(&mut self, of: &'a ComprehensionExpr, loops: usize) {
        let before = std::mem::take(&mut self.maps);
        self.walk(&of.iter_range, loops);
        self.runs_over_map |= self.maps > 0;
        self.maps += before + u64::from(is_map(of));
        self.walk(&of.accu_init, loops);
        let outside = self.bound.len();
        self.bound.extend([&*of.iter_var, &*of.accu_var]);
        self.bound.extend(of.iter_var2.as_deref());
        self.walk(&of.loop_cond, loops + 1);
        self.walk(&of.loop_step, loops + 1);
        self.walk(&of.result, loops);
        self.bound.truncate(outside);
    }

    /// Whether this is the list that a macro makes: it gets one element at a time.
    fn is_accumulated(&self, node: &IdedExpr) -> bool {
        matches!(&node.expr, Expr::Ident(name) if name.starts_with('@') && self.bound.contains(&name.as_str()))
    }
}

/// Whether this is a literal of a fixed size.
fn is_scalar(node: &IdedExpr) -> bool {
    matches!(
        &node.expr,
        Expr::Literal(
            LiteralValue::Boolean(_)
                | LiteralValue::Null
                | LiteralValue::Int(_)
                | LiteralValue::UInt(_)
                | LiteralValue::Double(_)
        )
    )
}

/// Whether a call may read all of a list or text.
fn reads_all(call: &CallExpr) -> bool {
    let is_literal = |node: &IdedExpr| matches!(&node.expr, Expr::Literal(_) | Expr::List(_));
    match &*call.func_name {
        "_==_" | "_!=_" | "@in" => !call.args.iter().any(is_literal),
        "contains" | "startsWith" | "endsWith" => true,
        _ => false,
    }
}

/// Whether a macro makes a list of other elements than those of its range.
fn is_map(of: &ComprehensionExpr) -> bool {
    fn appended<'a>(step: &'a IdedExpr, accumulated: &str) -> Option<&'a IdedExpr> {
        let Expr::Call(call) = &step.expr else { return None };
        let begins = |node: &IdedExpr| matches!(&node.expr, Expr::Ident(name) if name == accumulated);
        match (&*call.func_name, call.args.as_slice()) {
            ("_+_", [first, second]) if begins(first) => Some(second),
            (_, args) => args.iter().find_map(|argument| appended(argument, accumulated)),
        }
    }
    let is_element = |node: &IdedExpr| matches!(&node.expr, Expr::Ident(name) if *name == of.iter_var);
    match appended(&of.loop_step, &of.accu_var).map(|list| &list.expr) {
        // `exists_one` counts.
        None | Some(Expr::Literal(_)) => false,
        Some(Expr::List(list)) => !list.elements.iter().all(is_element),
        Some(_) => true,
    }
}

/// Number of values in a value; long texts count more.
fn size(value: &Value) -> u64 {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 1,
        Value::String(text) => 1 + (text.len() / BYTES_PER_STEP) as u64,
        Value::Array(values) => 1 + values.iter().map(size).sum::<u64>(),
        Value::Object(map) => 1 + map.values().map(size).sum::<u64>(),
    }
}

/// Converts JSON to CEL. Whole numbers become signed, like the literals in expressions, so that both can be
/// compared.
fn cel(value: &Value) -> Cel {
    match value {
        Value::Null => Cel::Null,
        Value::Bool(flag) => Cel::Bool(*flag),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => Cel::Int(whole),
            None => Cel::Float(number.as_f64().unwrap_or(f64::MAX)),
        },
        Value::String(text) => text.as_str().into(),
        Value::Array(values) => values.iter().map(cel).collect::<Vec<_>>().into(),
        Value::Object(map) => {
            let entries = map.iter().map(|(name, value)| (name.clone(), cel(value)));
            entries.collect::<std::collections::HashMap<_, _>>().into()
        }
    }
}

/// Converts the result of an expression to JSON of at most `left` values. Returns why that cannot be.
fn plain(value: &Cel, left: &mut usize) -> Result<Value, String> {
    *left = left.checked_sub(1).ok_or_else(|| format!("has a result of more than {MAX_VALUES} values"))?;
    Ok(match value {
        Cel::Null => Value::Null,
        Cel::Bool(flag) => json!(flag),
        Cel::Int(whole) => json!(whole),
        Cel::UInt(whole) => json!(whole),
        Cel::Float(number) => json!(number),
        Cel::String(text) => json!(text.as_str()),
        Cel::List(values) => {
            values.iter().map(|value| plain(value, left)).collect::<Result<Vec<_>, _>>()?.into()
        }
        Cel::Map(map) => {
            let entries = map.map.iter().map(|(key, value)| match key {
                Key::String(name) => Ok((name.to_string(), plain(value, left)?)),
                _ => Err(NOT_JSON.to_owned()),
            });
            entries.collect::<Result<Map<_, _>, String>>()?.into()
        }
        _ => return Err(NOT_JSON.to_owned()),
    })
}

const NOT_JSON: &str = "has a result that is not JSON";

#[cfg(test)]
mod tests {
    use super::*;

    fn evaluated(text: &str, value: Value) -> Result<Value, String> {
        let mut variables = Variables::default();
        variables.set("value", &value);
        Expression::compile(text)?.evaluate(&variables)
    }

    #[test]
    fn json_survives() {
        let value =
            json!({ "a": [1, -2, 1.5, "ü", true, null, { "b": {} }], "c": 9_007_199_254_740_993_i64 });
        assert_eq!(evaluated("value", value.clone()), Ok(value));
        assert_eq!(evaluated("b'abc'", Value::Null), Err("has a result that is not JSON".to_owned()));
    }

    #[test]
    fn macros_bind_their_own_variables() {
        for (text, names) in [
            ("value.all(x, x > 1) && other", &["other", "value"][..]),
            ("value.map(x, x.filter(y, y == x)).size() > z", &["value", "z"]),
            ("[x].exists(x, x == 1)", &["x"]),
            ("value.map(x, x > 0, {'a': x, b: [c]})", &["b", "c", "value"]),
        ] {
            let expression = Expression::compile(text).unwrap();
            assert_eq!(expression.variables().collect::<Vec<_>>(), names, "{text}");
        }
        assert_eq!(evaluated("value.all(x, x > 1)", json!([2, 3])), Ok(json!(true)));
        assert_eq!(evaluated("value.map(x, x * 2)", json!([2, 3])), Ok(json!([4, 6])));
    }

    #[test]
    fn what_takes_too_many_steps_is_not_evaluated() {
        let many = json!(vec![1; 2_000]);
        assert_eq!(evaluated("value.all(x, x == 1)", many.clone()), Ok(json!(true)));
        assert_eq!(evaluated("value.map(x, x > 0, x + 1).size()", json!(vec![1; 400])), Ok(json!(400)));
        for text in [
            "value.all(x, value.all(y, value.all(z, x + y + z > 0)))",
            "value.all(x, value.exists(y, x == y))",
            "value.map(x, value)",
            "value.all(x, x in value)",
            "value.all(x, [x, x] == [value])",
            "(value + value + value + value + value + value + value).map(x, value + value + value + value + value).size() > 0",
        ] {
            let refused = evaluated(text, many.clone());
            assert_eq!(refused, Err("takes too many steps for values of this size".to_owned()), "{text}");
        }
        let few = json!([1, 2, 3]);
        assert_eq!(
            evaluated("value.all(x, value.all(y, value.all(z, x + y + z > 0)))", few),
            Ok(json!(true))
        );
        let doubled = format!("[0]{}", ".map(a, [a, a])".repeat(20));
        for text in
            [&*doubled, "value.map(x, value)[0].map(y, y)", "[value.map(x, value)].all(y, y.size() > 0)"]
        {
            let refused = evaluated(text, json!([1, 2]));
            assert!(refused.is_err_and(|why| why.contains("over the result of `map`")), "{text}");
        }
        assert_eq!(evaluated("value.filter(x, x > 1).map(x, x * 2)", json!([1, 2, 3])), Ok(json!([4, 6])));
        assert!(evaluated("[value, value, value, value]", json!(vec![1; 30_000])).is_err());
        let long = json!(["x".repeat(1 << 20)]);
        assert!(evaluated("value.all(x, value.all(y, x.contains(y)))", long).is_err());
    }

    #[test]
    fn texts_and_conditions_beside_one_another_count_little() {
        let hosts: Vec<String> = (0..40).map(|host| format!("'eu-{host}.shop.example.com'")).collect();
        let listed = format!("value in [{}]", hosts.join(", "));
        assert_eq!(evaluated(&listed, json!("eu-7.shop.example.com")), Ok(json!(true)));
        let beside: Vec<String> = (0..30).map(|_| "(value > 1 ? true : false)".to_owned()).collect();
        assert_eq!(evaluated(&beside.join(" && "), json!(2)), Ok(json!(true)));
        for hidden in ["'' + ", "'''a'b''' + ", "r'\\' + ", "// it's\n", "'\\'' + ", "\"'\" + "] {
            let text = format!("{hidden}{}true{}", "(".repeat(200), ")".repeat(200));
            assert!(Expression::compile(&text).is_err_and(|why| why.contains("brackets")), "{text}");
        }
    }

    #[test]
    fn deep_expressions_are_refused_or_evaluated() {
        for (open, close) in
            [("(", ")"), ("[", "]"), ("f(", ")"), ("{1:", "}"), ("1+", ""), ("true?true:", "")]
        {
            for depth in [MAX_DEPTH, MAX_OPERATORS, (MAX_BYTES - 4) / (open.len() + close.len())] {
                let text = format!("{}true{}", open.repeat(depth), close.repeat(depth));
                match Expression::compile(&text) {
                    Ok(expression) => _ = expression.evaluate(&Variables::default()),
                    Err(why) => assert!(!text.starts_with('(') || depth > MAX_DEPTH, "{why}"),
                }
            }
        }
    }
}
