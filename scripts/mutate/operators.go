// SPDX-License-Identifier: MPL-2.0

package main

import (
	"go/ast"
	"go/token"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// scan collects the mutants of one declaration. The operators look at syntax alone: what they make is
// not always a program, and such mutants fall away when they are compiled.
type scan struct {
	file  *sourceFile
	fn    *ast.FuncDecl
	spec  ast.Spec
	stack []ast.Node // the ancestors of the node that is looked at, the nearest last
	found []*mutant
}

var (
	boundaries = map[token.Token]token.Token{token.LSS: token.LEQ, token.LEQ: token.LSS, token.GTR: token.GEQ, token.GEQ: token.GTR}
	opposites  = map[token.Token]token.Token{
		token.LSS: token.GEQ, token.GEQ: token.LSS, token.GTR: token.LEQ, token.LEQ: token.GTR,
		token.EQL: token.NEQ, token.NEQ: token.EQL,
	}
	arithmetic = map[token.Token]token.Token{
		token.ADD: token.SUB, token.SUB: token.ADD, token.MUL: token.QUO, token.QUO: token.MUL,
		token.ADD_ASSIGN: token.SUB_ASSIGN, token.SUB_ASSIGN: token.ADD_ASSIGN,
	}
	logic = map[token.Token]token.Token{token.LAND: token.LOR, token.LOR: token.LAND}
	// reversed are the comparisons of instants, whose boundary moves when the other one is denied.
	reversed = map[string]string{"Before": "After", "After": "Before"}
	// forPeople are fields that only explain.
	forPeople = map[string]bool{"Description": true, "HelpSynopsis": true, "HelpDescription": true, "Summary": true, "DisplayAttrs": true}
	lockCall  = regexp.MustCompile(`(?:^|\.)(?i:r?lock)\w*$`)
	unlocking = regexp.MustCompile(`(?:^|\.)(?i:r?unlock)\w*$`)
)

func (s *scan) walk(root ast.Node) {
	ast.Inspect(root, func(n ast.Node) bool {
		if n == nil {
			s.stack = s.stack[:len(s.stack)-1]
			return false
		}
		if stmt, ok := n.(ast.Stmt); ok && isLog(s.file, stmt) {
			return false
		}
		s.look(n)
		s.stack = append(s.stack, n)
		return true
	})
}

// parent is the nearest ancestor.
func (s *scan) parent() ast.Node {
	if len(s.stack) == 0 {
		return nil
	}
	return s.stack[len(s.stack)-1]
}

// add notes a mutant that is noticed where it is.
func (s *scan) add(op string, at ast.Node, edits ...edit) *mutant {
	m := &mutant{file: s.file, fn: s.fn, spec: s.spec, op: op, at: at.Pos(), edits: edits, anchors: []token.Pos{at.Pos()}}
	for _, n := range slices.Backward(s.stack) {
		if _, ok := n.(ast.Stmt); ok {
			m.anchors = append(m.anchors, n.Pos())
		}
	}
	s.found = append(s.found, m)
	return m
}

// noticed says that the mutant matters from a position on that is not its own.
func (m *mutant) noticed(at ast.Node) *mutant {
	m.anchors = append([]token.Pos{at.Pos()}, m.anchors...)
	return m
}

// differs says what a reader is shown instead of the changed line.
func (m *mutant) differs(was, now string) {
	m.was, m.now = was, now
}

func (s *scan) replace(n ast.Node, text string) edit {
	return edit{s.file.offset(n.Pos()), s.file.offset(n.End()), text}
}

func (s *scan) token(at token.Pos, was, now token.Token) edit {
	from := s.file.offset(at)
	return edit{from, from + len(was.String()), now.String()}
}

func (s *scan) insert(at token.Pos, text string) edit {
	from := s.file.offset(at)
	return edit{from, from, text}
}

func (s *scan) look(n ast.Node) {
	switch n := n.(type) {
	case *ast.BinaryExpr:
		s.binary(n)
	case *ast.UnaryExpr:
		s.unary(n)
	case *ast.CallExpr:
		s.call(n)
	case *ast.BasicLit:
		s.number(n)
	case *ast.SelectorExpr:
		s.unit(n)
	case *ast.Ident:
		s.boolean(n)
	case *ast.CompositeLit:
		s.fields(n)
	case *ast.IfStmt:
		s.condition(n.Cond)
		s.guard(n)
	case *ast.ForStmt:
		if n.Cond != nil {
			s.condition(n.Cond)
		}
	case *ast.BlockStmt:
		s.statements(n.List)
	case *ast.CaseClause:
		s.clause(n)
		s.statements(n.Body)
	case *ast.CommClause:
		s.body(n, n.Body)
		s.statements(n.Body)
	case *ast.ReturnStmt:
		s.noError(n)
	case *ast.AssignStmt:
		s.unlocked(n)
		if now, ok := arithmetic[n.Tok]; ok {
			s.add("arithmetic", n, s.token(n.TokPos, n.Tok, now))
		}
	}
}

func (s *scan) binary(n *ast.BinaryExpr) {
	if now, ok := boundaries[n.Op]; ok {
		s.add("boundary", n, s.token(n.OpPos, n.Op, now))
	}
	if now, ok := opposites[n.Op]; ok && !s.isFailure(n) {
		s.add("compare", n, s.token(n.OpPos, n.Op, now))
	}
	if now, ok := arithmetic[n.Op]; ok && !isText(n.X) && !isText(n.Y) {
		s.add("arithmetic", n, s.token(n.OpPos, n.Op, now))
	}
	now, ok := logic[n.Op]
	if !ok {
		return
	}
	s.add("logic", n, s.token(n.OpPos, n.Op, now))
	// Of a chain each operand is left out once.
	from, to := s.file.offset(n.Pos()), s.file.offset(n.End())
	s.add("operand", n.Y, edit{s.file.offset(n.X.End()), to, ""}).noticed(n)
	if x, ok := n.X.(*ast.BinaryExpr); !ok || x.Op != n.Op {
		s.add("operand", n.X, edit{from, s.file.offset(n.Y.Pos()), ""})
	}
	for _, operand := range []ast.Expr{n.X, n.Y} {
		if _, ok := operand.(*ast.BinaryExpr); !ok {
			s.condition(operand)
		}
	}
}

// isFailure: the condition of an if is that there is an error. To take its body away is the smaller
// change; to turn it is noticed by every test and would only raise the share.
func (s *scan) isFailure(n *ast.BinaryExpr) bool {
	_, ok := s.parent().(*ast.IfStmt)
	return ok && n.Op == token.NEQ && s.file.text(n.X) == "err" && s.file.text(n.Y) == "nil"
}

func isText(e ast.Expr) bool {
	lit, ok := e.(*ast.BasicLit)
	return ok && lit.Kind == token.STRING
}

func (s *scan) unary(n *ast.UnaryExpr) {
	switch n.Op {
	case token.NOT:
		s.add("not", n, edit{s.file.offset(n.Pos()), s.file.offset(n.X.Pos()), ""})
		if call, sel := instants(n.X); call != nil {
			from := s.file.offset(n.Pos())
			s.add("boundary", n, edit{from, from + 1, ""}, s.replace(sel, reversed[sel.Name]))
		}
	case token.SUB:
		if _, ok := n.X.(*ast.BasicLit); !ok {
			s.add("arithmetic", n, edit{s.file.offset(n.Pos()), s.file.offset(n.X.Pos()), ""})
		}
	}
}

// instants is the call and the method's name if e compares two instants.
func instants(e ast.Expr) (*ast.CallExpr, *ast.Ident) {
	call, ok := e.(*ast.CallExpr)
	if !ok || len(call.Args) != 1 {
		return nil, nil
	}
	sel, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || reversed[sel.Sel.Name] == "" {
		return nil, nil
	}
	return call, sel.Sel
}

func (s *scan) call(n *ast.CallExpr) {
	if _, sel := instants(n); sel != nil {
		if not, ok := s.parent().(*ast.UnaryExpr); !ok || not.Op != token.NOT {
			s.add("boundary", n, s.insert(n.Pos(), "!"), s.replace(sel, reversed[sel.Name]))
		}
	}
	switch fun := n.Fun.(type) {
	case *ast.Ident:
		if now := map[string]string{"min": "max", "max": "min"}[fun.Name]; now != "" && len(n.Args) > 1 {
			s.add("order", n, s.replace(fun, now))
		}
	case *ast.SelectorExpr:
		if fun.Sel.Name != "Compare" {
			return
		}
		switch len(n.Args) {
		case 1:
			s.add("order", n, s.replace(fun.X, s.file.text(n.Args[0])), s.replace(n.Args[0], s.file.text(fun.X)))
		case 2:
			s.add("order", n, s.replace(n.Args[0], s.file.text(n.Args[1])), s.replace(n.Args[1], s.file.text(n.Args[0])))
		}
	}
}

// number moves a constant by one.
func (s *scan) number(n *ast.BasicLit) {
	if n.Kind != token.INT || s.isCapacity(n) {
		return
	}
	v, err := strconv.ParseInt(n.Value, 0, 64)
	if err != nil {
		return
	}
	s.add("number", n, s.replace(n, strconv.FormatInt(v+1, 10)))
	if v > 0 {
		s.add("number", n, s.replace(n, strconv.FormatInt(v-1, 10)))
	}
}

// isCapacity: how much room is made does not change what is put there.
func (s *scan) isCapacity(n ast.Expr) bool {
	call, ok := s.parent().(*ast.CallExpr)
	if !ok {
		return false
	}
	fun, ok := call.Fun.(*ast.Ident)
	if !ok || fun.Name != "make" {
		return false
	}
	_, isMap := call.Args[0].(*ast.MapType)
	return isMap || (len(call.Args) == 3 && call.Args[2] == n)
}

// unit doubles a unit of time that stands alone; beside a number that is the one to change.
func (s *scan) unit(n *ast.SelectorExpr) {
	x, ok := n.X.(*ast.Ident)
	if !ok || x.Name != "time" || !slices.Contains([]string{"Hour", "Minute", "Second", "Millisecond"}, n.Sel.Name) {
		return
	}
	if b, ok := s.parent().(*ast.BinaryExpr); ok && (b.Op == token.MUL || b.Op == token.QUO) {
		return
	}
	s.add("number", n, s.replace(n, "(2*"+s.file.text(n)+")"))
}

func (s *scan) boolean(n *ast.Ident) {
	now := map[string]string{"true": "false", "false": "true"}[n.Name]
	if now == "" {
		return
	}
	if pair, ok := s.parent().(*ast.KeyValueExpr); ok && pair.Key == n {
		return
	}
	s.add("boolean", n, s.replace(n, now))
}

// fields leaves each field of a literal out.
func (s *scan) fields(n *ast.CompositeLit) {
	for i, elt := range n.Elts {
		pair, ok := elt.(*ast.KeyValueExpr)
		if !ok {
			continue
		}
		if key, ok := pair.Key.(*ast.Ident); ok && forPeople[key.Name] {
			continue
		}
		from, to := elt.Pos(), elt.End()
		switch {
		case i+1 < len(n.Elts):
			to = n.Elts[i+1].Pos()
		case i > 0:
			from = n.Elts[i-1].End()
		}
		s.add("field", elt, edit{s.file.offset(from), s.file.offset(to), ""}).differs(s.file.text(elt), "")
	}
}

// condition turns a condition that has no operator of its own to turn.
func (s *scan) condition(e ast.Expr) {
	switch inner := ast.Unparen(e).(type) {
	case *ast.UnaryExpr:
		if inner.Op == token.NOT {
			return
		}
	case *ast.BinaryExpr:
		if _, ok := opposites[inner.Op]; ok {
			return
		}
	case *ast.Ident:
		if inner.Name == "true" || inner.Name == "false" {
			return
		}
	}
	s.add("negate", e, s.insert(e.Pos(), "!("), s.insert(e.End(), ")"))
}

// guard takes the body of an if away. The condition stays, so that all names are still used.
func (s *scan) guard(n *ast.IfStmt) {
	if len(n.Body.List) == 0 || (n.Else == nil && allLogs(s.file, n.Body.List)) {
		return
	}
	s.add("guard", n.Cond, s.insert(n.Cond.Pos(), "false && ("), s.insert(n.Cond.End(), ")")).noticed(n.Body.List[0])
}

func (s *scan) clause(n *ast.CaseClause) {
	if len(s.stack) >= 2 {
		if sw, ok := s.stack[len(s.stack)-2].(*ast.SwitchStmt); ok && sw.Tag == nil {
			for _, e := range n.List {
				s.condition(e)
			}
		}
	}
	s.body(n, n.Body)
}

// body takes the body of a case away.
func (s *scan) body(n ast.Stmt, list []ast.Stmt) {
	if len(list) == 0 || allLogs(s.file, list) {
		return
	}
	from, to := s.file.offset(list[0].Pos()), s.file.offset(list[len(list)-1].End())
	s.add("case", n, edit{from, to, ""}).noticed(list[0]).differs(string(s.file.src[s.file.offset(n.Pos()):to]), strings.TrimSpace(string(s.file.src[s.file.offset(n.Pos()):from])))
}

func (s *scan) statements(list []ast.Stmt) {
	for i, stmt := range list {
		if s.droppable(stmt) {
			op := "drop"
			if d, ok := stmt.(*ast.DeferStmt); ok && unlocking.MatchString(s.file.text(d.Call.Fun)) {
				op = "unlock"
			}
			s.add(op, stmt, s.replace(stmt, "")).differs(s.file.text(stmt), "")
		}
		if i > 0 && s.writes(list[i-1]) && s.writes(stmt) {
			a, b := s.file.text(list[i-1]), s.file.text(stmt)
			if a != b {
				s.add("swap", list[i-1], s.replace(list[i-1], b), s.replace(stmt, a)).differs(a+"; "+b, b+"; "+a)
			}
		}
	}
}

func (s *scan) droppable(stmt ast.Stmt) bool {
	switch stmt := stmt.(type) {
	case *ast.ExprStmt:
		call, ok := stmt.X.(*ast.CallExpr)
		// A lock of which the other half stays ends the process: locks takes both.
		return ok && !isLog(s.file, stmt) && !s.isLockMethod(call, "Lock", "RLock")
	case *ast.AssignStmt:
		if stmt.Tok == token.DEFINE {
			return false
		}
		return !slices.ContainsFunc(stmt.Lhs, func(e ast.Expr) bool {
			id, ok := e.(*ast.Ident)
			return ok && id.Name == "_"
		})
	case *ast.ReturnStmt:
		return len(stmt.Results) == 0
	case *ast.BranchStmt:
		return stmt.Tok == token.BREAK || stmt.Tok == token.CONTINUE
	case *ast.IncDecStmt, *ast.DeferStmt, *ast.GoStmt, *ast.SendStmt:
		return true
	}
	return false
}

// writes: the statement calls something for its effect, so that its order may matter.
func (s *scan) writes(stmt ast.Stmt) bool {
	switch stmt := stmt.(type) {
	case *ast.ExprStmt:
		call, ok := stmt.X.(*ast.CallExpr)
		return ok && !isLog(s.file, stmt) && !s.isLockMethod(call, "Lock", "RLock", "Unlock", "RUnlock")
	case *ast.AssignStmt:
		_, ok := stmt.Rhs[0].(*ast.CallExpr)
		return ok && stmt.Tok == token.ASSIGN
	case *ast.IfStmt:
		init, ok := stmt.Init.(*ast.AssignStmt)
		if !ok || stmt.Else != nil {
			return false
		}
		_, ok = init.Rhs[0].(*ast.CallExpr)
		return ok
	}
	return false
}

// isLog: what a log says is not held by tests, so nothing is made of it.
func isLog(f *sourceFile, stmt ast.Stmt) bool {
	expr, ok := stmt.(*ast.ExprStmt)
	if !ok {
		return false
	}
	call, ok := expr.X.(*ast.CallExpr)
	if !ok {
		return false
	}
	fun := f.text(call.Fun)
	return strings.Contains(fun, "Logger()") || strings.HasPrefix(fun, "log.")
}

func allLogs(f *sourceFile, list []ast.Stmt) bool {
	return !slices.ContainsFunc(list, func(stmt ast.Stmt) bool { return !isLog(f, stmt) })
}

func (s *scan) isLockMethod(call *ast.CallExpr, names ...string) bool {
	sel, ok := call.Fun.(*ast.SelectorExpr)
	return ok && len(call.Args) == 0 && slices.Contains(names, sel.Sel.Name)
}

// unlocked takes a lock away whose release is a function that the call answers.
func (s *scan) unlocked(n *ast.AssignStmt) {
	if len(n.Lhs) != 1 || len(n.Rhs) != 1 {
		return
	}
	call, ok := n.Rhs[0].(*ast.CallExpr)
	if ok && lockCall.MatchString(s.file.text(call.Fun)) {
		s.add("lock", n, s.replace(call, "func() {}"))
	}
}

// locks takes each mutex of the function away, with all that releases it.
func (s *scan) locks() {
	type pair struct{ x, lock, unlock string }
	edits := map[pair][]edit{}
	var order []pair
	first := map[pair]ast.Stmt{}
	ast.Inspect(s.fn.Body, func(n ast.Node) bool {
		var call *ast.CallExpr
		switch n := n.(type) {
		case *ast.ExprStmt:
			call, _ = n.X.(*ast.CallExpr)
		case *ast.DeferStmt:
			call = n.Call
		}
		if call == nil {
			return true
		}
		for _, p := range []pair{{"", "Lock", "Unlock"}, {"", "RLock", "RUnlock"}} {
			if !s.isLockMethod(call, p.lock, p.unlock) {
				continue
			}
			sel, _ := call.Fun.(*ast.SelectorExpr)
			p.x = s.file.text(sel.X)
			if sel.Sel.Name == p.lock && first[p] == nil {
				first[p], _ = n.(ast.Stmt)
				order = append(order, p)
			}
			edits[p] = append(edits[p], s.replace(n, ""))
		}
		return true
	})
	for _, p := range order {
		s.add("lock", first[p], edits[p]...).differs(s.file.text(first[p]), "")
	}
}

// noError answers nil for an error.
func (s *scan) noError(n *ast.ReturnStmt) {
	results := s.results()
	if results == nil || len(n.Results) != results.NumFields() || !s.isError(results.List[len(results.List)-1].Type) {
		return
	}
	last := n.Results[len(n.Results)-1]
	if id, ok := last.(*ast.Ident); ok && id.Name == "nil" {
		return
	}
	s.add("noerror", n, s.replace(last, "nil"))
}

func (s *scan) isError(e ast.Expr) bool {
	id, ok := e.(*ast.Ident)
	return ok && id.Name == "error"
}

// results are those of the innermost function, nil if it has none.
func (s *scan) results() *ast.FieldList {
	var t *ast.FuncType
	if s.fn != nil {
		t = s.fn.Type
	}
	for _, n := range slices.Backward(s.stack) {
		if lit, ok := n.(*ast.FuncLit); ok {
			t = lit.Type
			break
		}
	}
	if t == nil || t.Results.NumFields() == 0 {
		return nil
	}
	return t.Results
}

// early makes a function return at once, with nothing and no error.
func (s *scan) early() {
	list := s.fn.Body.List
	if len(list) < 2 {
		return // what there is is left out by itself
	}
	text := "return"
	if results := s.results(); results != nil {
		if !s.isError(results.List[len(results.List)-1].Type) {
			return
		}
		var values []string
		for _, f := range results.List {
			for range max(1, len(f.Names)) {
				values = append(values, "*new("+s.file.text(f.Type)+")")
			}
		}
		values[len(values)-1] = "nil"
		text += " " + strings.Join(values, ", ")
	}
	s.add("early", list[0], s.insert(list[0].Pos(), text+"; ")).differs(s.file.text(list[0]), text)
}
