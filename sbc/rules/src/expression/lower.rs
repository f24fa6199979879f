//! From what CEL's parser read to typed nodes; whatever else it read is refused here, by name.

use std::sync::Arc;

use cel::IdedExpr;
use cel::common::ast::{CallExpr, Expr, LiteralValue, SelectExpr, operators};

use super::Names;
use super::node::{Compare, List, Number, Text, Truth};
use crate::pattern::Pattern;

/// Nodes of one expression.
const NODES: usize = 64;

/// Octets of a text in it.
const TEXT: usize = 128;

/// A node of any type.
enum Any {
    Truth(Truth),
    Text(Text),
    Number(Number),
    List(List),
}

impl Any {
    fn kind(&self) -> &'static str {
        match self {
            Self::Truth(_) => "a bool",
            Self::Text(_) => "a string",
            Self::Number(_) => "an int",
            Self::List(_) => "a list",
        }
    }
}

type Made<T> = Result<T, String>;

pub(super) struct Lowering<'a> {
    names: &'a mut Names,
    nodes: usize,
}

impl<'a> Lowering<'a> {
    pub(super) fn new(names: &'a mut Names) -> Self {
        Self { names, nodes: 0 }
    }

    pub(super) fn truth(&mut self, from: &IdedExpr) -> Made<Truth> {
        match self.any(from)? {
            Any::Truth(truth) => Ok(truth),
            other => Err(format!("has {} where a bool is wanted: compare it with something", other.kind())),
        }
    }

    fn boxed(&mut self, from: &IdedExpr) -> Made<Box<Truth>> {
        self.truth(from).map(Box::new)
    }

    fn text(&mut self, from: &IdedExpr) -> Made<Text> {
        match self.any(from)? {
            Any::Text(text) => Ok(text),
            other => Err(format!("has {} where a string is wanted", other.kind())),
        }
    }

    fn any(&mut self, from: &IdedExpr) -> Made<Any> {
        self.nodes += 1;
        if self.nodes > NODES {
            return Err(format!("may cost too much: it has more than {NODES} parts"));
        }
        match &from.expr {
            Expr::Literal(literal) => self::literal(literal),
            Expr::Ident(name) => variable(name),
            Expr::Select(select) if select.test => {
                Err("uses has(): every fact exists, and a header that is not there is \"\"".into())
            }
            Expr::Select(select) => variable(&path(select)?),
            Expr::Call(call) => self.call(call),
            Expr::Comprehension(_) => {
                Err("may cost too much: macros (all, exists, exists_one, map, filter) are refused".into())
            }
            Expr::List(_) => {
                Err("builds a list: write a == \"x\" || a == \"y\", or a group or a pattern".into())
            }
            Expr::Map(_) | Expr::Struct(_) => Err("builds a map or a message: there are none here".into()),
            Expr::Unspecified => Err("is empty".into()),
        }
    }

    fn call(&mut self, call: &CallExpr) -> Made<Any> {
        let name = call.func_name.as_str();
        let truth = match (name, call.target.as_deref(), call.args.as_slice()) {
            (operators::LOGICAL_AND, None, [one, other]) => Truth::And(self.boxed(one)?, self.boxed(other)?),
            (operators::LOGICAL_OR, None, [one, other]) => Truth::Or(self.boxed(one)?, self.boxed(other)?),
            (operators::LOGICAL_NOT, None, [one]) => Truth::Not(self.boxed(one)?),
            (operators::CONDITIONAL, None, [when, then, or]) => {
                Truth::If(Box::new((self.truth(when)?, self.truth(then)?, self.truth(or)?)))
            }
            (operators::IN, None, [one, list]) => match (self.any(one)?, self.any(list)?) {
                (Any::Text(text), Any::List(list)) => self.is_in(text, list),
                (one, other) => return Err(format!("asks whether {} is in {}", one.kind(), other.kind())),
            },
            ("startsWith", Some(text), [part]) => Truth::StartsWith(self.text(text)?, self.text(part)?),
            ("endsWith", Some(text), [part]) => Truth::EndsWith(self.text(text)?, self.text(part)?),
            ("contains", Some(text), [part]) => Truth::Contains(self.text(text)?, self.text(part)?),
            ("matches", Some(text), [pattern]) | ("matches", None, [text, pattern]) => {
                let text = self.text(text)?;
                let Text::Literal(pattern) = self.text(pattern)? else {
                    return Err("has a pattern that is not literal: write it out in quotes".into());
                };
                let pattern = Pattern::new(&pattern).map_err(|why| format!("has a pattern that {why}"))?;
                Truth::Matches(text, Box::new(pattern))
            }
            ("size", Some(of), []) | ("size", None, [of]) => {
                return match self.any(of)? {
                    Any::Text(text) => Ok(Any::Number(Number::Length(text))),
                    Any::List(list) => Ok(Any::Number(Number::Entries(list))),
                    other => Err(format!("asks for the size of {}", other.kind())),
                };
            }
            ("header", None, [name]) => return self.header(name),
            ("group_calls", None, [name]) => {
                let Text::Literal(group) = self.text(name)? else {
                    return Err("asks for the calls of a group that is not literal: name it in quotes".into());
                };
                let group: Arc<str> = group.into();
                self.names.groups.insert(group.clone());
                return Ok(Any::Number(Number::GroupCalls(group)));
            }
            (operators::NEGATE, None, [one]) => {
                return match self.any(one)? {
                    Any::Number(Number::Literal(number)) => {
                        Ok(Any::Number(Number::Literal(number.saturating_neg())))
                    }
                    _ => Err("computes: + - * / % could fail, compare instead".into()),
                };
            }
            (operator, None, [one, other]) => {
                let compare = comparison(operator).ok_or_else(|| unknown(operator))?;
                let (one, other) = (self.any(one)?, self.any(other)?);
                compared(compare, one, other)?
            }
            (other, ..) => return Err(unknown(other)),
        };
        Ok(Any::Truth(truth))
    }

    fn is_in(&mut self, text: Text, list: List) -> Truth {
        if let (Text::Literal(group), List::Groups) = (&text, list) {
            self.names.groups.insert((&**group).into());
        }
        Truth::In(text, list)
    }

    fn header(&mut self, name: &IdedExpr) -> Made<Any> {
        let Text::Literal(name) = self.text(name)? else {
            return Err("asks for a header whose name is not literal: write it in quotes".into());
        };
        let token = |octet: u8| octet.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&octet);
        if name.is_empty() || !name.bytes().all(token) {
            return Err(format!("asks for the header \"{name}\", which is no header's name"));
        }
        let name: Arc<str> = name.to_ascii_lowercase().into();
        self.names.headers.insert(name.clone());
        Ok(Any::Text(Text::Header(name)))
    }
}

fn literal(literal: &LiteralValue) -> Made<Any> {
    match literal {
        LiteralValue::Boolean(known) => Ok(Any::Truth(Truth::Is(*known.inner()))),
        LiteralValue::Int(number) => Ok(Any::Number(Number::Literal(*number.inner()))),
        LiteralValue::String(text) if text.inner().len() > TEXT => {
            Err(format!("has a text of {} octets: {TEXT} are the most", text.inner().len()))
        }
        LiteralValue::String(text) => Ok(Any::Text(Text::Literal(text.inner().into()))),
        _ => Err("has a literal that is no bool, int or string".into()),
    }
}

/// The dotted name that selections spell.
fn path(select: &SelectExpr) -> Made<String> {
    match &select.operand.expr {
        Expr::Ident(name) => Ok(format!("{name}.{}", select.field)),
        _ => Err(format!("asks for .{} of something that has no parts", select.field)),
    }
}

fn variable(name: &str) -> Made<Any> {
    Ok(match name {
        "emergency" => Any::Truth(Truth::Emergency),
        "realm" => Any::Text(Text::Realm),
        "caller.kind" => Any::Text(Text::CallerKind),
        "caller.name" => Any::Text(Text::CallerName),
        "caller.number" => Any::Text(Text::CallerNumber),
        "caller.host" => Any::Text(Text::CallerHost),
        "callee.number" => Any::Text(Text::CalleeNumber),
        "callee.host" => Any::Text(Text::CalleeHost),
        "user_agent" => Any::Text(Text::UserAgent),
        "calls.realm" => Any::Number(Number::RealmCalls),
        "calls.caller" => Any::Number(Number::CallerCalls),
        "groups" => Any::List(List::Groups),
        "codecs" => Any::List(List::Codecs),
        other => return Err(format!("names \"{other}\", which is no fact of a call")),
    })
}

fn comparison(operator: &str) -> Option<Compare> {
    Some(match operator {
        operators::EQUALS => Compare::Equal,
        operators::NOT_EQUALS => Compare::Unequal,
        operators::LESS => Compare::Less,
        operators::LESS_EQUALS => Compare::LessOrEqual,
        operators::GREATER => Compare::Greater,
        operators::GREATER_EQUALS => Compare::GreaterOrEqual,
        _ => return None,
    })
}

fn compared(compare: Compare, one: Any, other: Any) -> Made<Truth> {
    match (compare, one, other) {
        (_, Any::Text(one), Any::Text(other)) => Ok(Truth::Texts(compare, one, other)),
        (_, Any::Number(one), Any::Number(other)) => Ok(Truth::Numbers(compare, one, other)),
        (Compare::Equal, Any::Truth(one), Any::Truth(other)) => {
            Ok(Truth::Same(Box::new(one), Box::new(other)))
        }
        (Compare::Unequal, Any::Truth(one), Any::Truth(other)) => {
            Ok(Truth::Not(Box::new(Truth::Same(Box::new(one), Box::new(other)))))
        }
        (_, one, other) => Err(format!("compares {} with {}", one.kind(), other.kind())),
    }
}

fn unknown(function: &str) -> String {
    let symbol: String = function.chars().filter(|char| !matches!(char, '_' | '@')).collect();
    if function.starts_with('_') || function.starts_with('-') {
        return format!("uses {symbol}: arithmetic and indices could fail, compare instead");
    }
    format!("calls {function}() in a way that does not exist")
}
