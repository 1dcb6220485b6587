//! CEL expressions of templates, with a bound on what they cost, over variables that are JSON values. Pure, no I/O.

use std::collections::BTreeSet;

use cel::common::ast::{ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue};
use cel::objects::Key;
use cel::{Context, Program, Value as Cel};
use serde_json::{Map, Value, json};

/// Longest expression, in bytes.
const MAX: usize = 2_000;
/// Most brackets and conditions `?` in one another, and most operators. The parser recurses for each of the former, and the
/// evaluation for all.
const MAX_DEPTH: usize = 24;
const MAX_OPERATORS: usize = 100;
/// Stack for an expression, in bytes: four times what the deepest takes without optimisation.
const STACK: usize = 16 << 20;
/// Most steps of one evaluation, as estimated before it.
const MAX_STEPS: u64 = 5_000_000;
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
        if text.len() > MAX {
            return Err(format!("must have at most {MAX} bytes"));
        }
        if let Some(why) = nesting_fault(text) {
            return Err(why);
        }
        apart(|| {
            let program = Program::compile(text).map_err(|why| format!("is not a CEL expression: {why}"))?;
            let mut found = Walk::default();
            found.walk(program.expression(), 0);
            let Walk { variables, cost, literals, additions, .. } = found;
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
        apart(|| {
            let value = self.program.execute(&variables.context).map_err(|why| why.to_string())?;
            plain(&value).ok_or_else(|| "has a result that is not JSON".to_owned())
        })
    }
}

/// Runs this in a thread of its own, because the library may panic, and takes some 100 KiB of the stack for each bracket and 20
/// for each operator.
fn apart<T: Send>(work: impl FnOnce() -> Result<T, String> + Send) -> Result<T, String> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work);
        let done = thread.map_err(|why| format!("cannot be read now: {why}"))?.join();
        done.unwrap_or_else(|_| Err("cannot be read".to_owned()))
    })
}

/// Returns the fault of an expression that is nested too deeply. Characters in texts count as if they were outside.
fn nesting_fault(text: &str) -> Option<String> {
    let (mut depth, mut deepest, mut operators) = (0_usize, 0, text.matches(" in ").count());
    for character in text.chars() {
        match character {
            '(' | '[' | '{' | '?' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            '.' | '!' | '-' | '+' | '*' | '/' | '%' | '&' | '|' | '<' | '>' | '=' => operators += 1,
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    let is_too_much = deepest > MAX_DEPTH || operators > MAX_OPERATORS;
    is_too_much.then(|| {
        format!("must have at most {MAX_DEPTH} brackets and conditions in one another, and {MAX_OPERATORS} operators")
    })
}

/// A walk through the syntax tree.
#[derive(Default)]
struct Walk<'a> {
    /// Variables that the macros around the current expression bind.
    bound: Vec<&'a str>,
    variables: BTreeSet<String>,
    cost: Cost,
    literals: u64,
    additions: u64,
}

impl<'a> Walk<'a> {
    /// Walks through an expression inside of this many macros.
    fn walk(&mut self, node: &'a IdedExpr, loops: usize) {
        self.cost.add(loops, 1);
        match &node.expr {
            Expr::Unspecified => {}
            Expr::Literal(_) => self.literals += 1,
            Expr::Ident(name) => {
                if !self.bound.contains(&name.as_str()) {
                    self.variables.insert(name.clone());
                }
            }
            Expr::Call(call) => {
                if call.func_name == "_+_" && !call.args.iter().any(is_number) {
                    // It may copy two lists.
                    self.cost.add(loops + 1, 1);
                    self.additions += u64::from(!call.args.iter().any(|it| self.is_accumulated(it)));
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
        self.walk(&of.iter_range, loops);
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

fn is_number(node: &IdedExpr) -> bool {
    matches!(
        &node.expr,
        Expr::Literal(LiteralValue::Int(_) | LiteralValue::UInt(_) | LiteralValue::Double(_))
    )
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

/// Converts the result of an expression to JSON; none if JSON has no such value.
fn plain(value: &Cel) -> Option<Value> {
    Some(match value {
        Cel::Null => Value::Null,
        Cel::Bool(flag) => json!(flag),
        Cel::Int(whole) => json!(whole),
        Cel::UInt(whole) => json!(whole),
        Cel::Float(number) => json!(number),
        Cel::String(text) => json!(text.as_str()),
        Cel::List(values) => values.iter().map(plain).collect::<Option<Vec<_>>>()?.into(),
        Cel::Map(map) => {
            let entries = map.map.iter().map(|(key, value)| match key {
                Key::String(name) => Some((name.to_string(), plain(value)?)),
                _ => None,
            });
            entries.collect::<Option<Map<_, _>>>()?.into()
        }
        _ => return None,
    })
}

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
        assert_eq!(evaluated("value.map(x, x > 0, x + 1).size()", many.clone()), Ok(json!(2_000)));
        for text in [
            "value.all(x, value.all(y, value.all(z, x + y + z > 0)))",
            "value.all(x, value.exists(y, x == y))",
            "value.map(x, value).map(x, x.map(y, value)).size() > 0",
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
        let long = json!(["x".repeat(1 << 20)]);
        assert!(evaluated("value.all(x, value.all(y, x.contains(y)))", long).is_err());
    }

    #[test]
    fn deep_expressions_are_refused_or_evaluated() {
        for (open, close) in
            [("(", ")"), ("[", "]"), ("f(", ")"), ("{1:", "}"), ("1+", ""), ("true?true:", "")]
        {
            for depth in [MAX_DEPTH, MAX_OPERATORS, (MAX - 4) / (open.len() + close.len())] {
                let text = format!("{}true{}", open.repeat(depth), close.repeat(depth));
                match Expression::compile(&text) {
                    Ok(expression) => _ = expression.evaluate(&Variables::default()),
                    Err(why) => assert!(!text.starts_with('(') || depth > MAX_DEPTH, "{why}"),
                }
            }
        }
    }
}
