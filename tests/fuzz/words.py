"""What templates of the grammar are made of; entries are told apart by two semicolons."""

from __future__ import annotations


def _entries(text: str) -> list[str]:
    return [entry.strip() for entry in text.split(";;")]


NAMES = _entries(r"""
    messages ;; message ;; m ;; ns ;; x ;; tools ;; loop ;; bos_token ;; nothing ;; self ;;
    add_generation_prompt
""")
ATTRS = _entries(r"""
    role ;; content ;; tool_calls ;; x ;; y ;; index ;; first ;; previtem ;; items ;; keys ;; values ;;
    name ;; __class__ ;; __init__ ;; __globals__ ;; __mro__ ;; gi_frame ;; _Namespace__attrs ;; format ;;
    join ;; get
""")
TEXTS = _entries(r"""
    '' ;; 'a' ;; 'user' ;; ' \n' ;; '%s' ;; '{}' ;; '{0.__class__}' ;; '%(a)9999d' ;; '<|im_start|>' ;;
    'é😀' ;; '\ud800' ;; '<b>' ;; '__class__' ;; 'a,b' ;; '{:>999999}' ;; '%*d' ;; '0' ;; '\x00'
""")
NUMBERS = _entries(r"""
    0 ;; 1 ;; -1 ;; 2 ;; 3 ;; 7 ;; 60 ;; 200 ;; 10**9 ;; 2**63 ;; 1.5 ;; 1e308 ;; 0.0
""")
UNARY = _entries(r"""
    - ;; not ;; +
""")
BINARY = _entries(r"""
    + ;; - ;; * ;; / ;; // ;; % ;; ** ;; ~ ;; == ;; != ;; < ;; <= ;; > ;; >= ;; in ;; not in ;; and ;; or
""")
FILTERS = _entries(r"""
    abs ;; attr('x') ;; batch(3) ;; capitalize ;; center(99) ;; count ;; d(1) ;; default([]) ;;
    dictsort ;; e ;; escape ;; filesizeformat ;; first ;; float ;; forceescape ;; format(1) ;;
    groupby('role') ;; indent(4) ;; int ;; int(0, 16) ;; join ;; join(', ') ;; join(',', 'role') ;;
    last ;; length ;; list ;; lower ;; items ;; map('upper') ;; map(attribute='role') ;; map('list') ;;
    max ;; min ;; pprint ;; random ;; reject('odd') ;; rejectattr('role', 'eq', 'user') ;;
    replace('a', 'aa') ;; reverse ;; round(2) ;; safe ;; select('in', x) ;; select ;;
    selectattr('role', 'equalto', 'user') ;; slice(3) ;; sort ;; sort(attribute='role') ;; string ;;
    striptags ;; sum ;; sum(attribute='x') ;; title ;; tojson ;; tojson(indent=2) ;; trim ;;
    truncate(9) ;; unique ;; unique(attribute='role') ;; upper ;; urlencode ;; wordcount ;; wordwrap(3) ;;
    xmlattr ;; urlize
""")
TESTS = _entries(r"""
    defined ;; none ;; string ;; mapping ;; iterable ;; sequence ;; number ;; odd ;; eq x ;; in x ;;
    sameas x ;; divisibleby 0 ;; lt 3 ;; callable ;; lower ;; filter ;; undefined ;; boolean ;; escaped ;;
    ge messages
""")
METHODS = _entries(r"""
    strip() ;; split() ;; split('a') ;; splitlines() ;; upper() ;; title() ;; format(x) ;;
    join(messages) ;; x() ;; items() ;; keys() ;; values() ;; get('role') ;; get(x) ;; copy() ;;
    append(1) ;; update(x) ;; index(x) ;; count(x) ;; startswith('a') ;; replace('a', 'bbb') ;;
    center(99999) ;; zfill(10**6) ;; encode() ;; pop() ;; ljust(10**8) ;; expandtabs(9999) ;;
    translate(x) ;; to_bytes(9, 'big') ;; bit_length() ;; is_integer() ;; cycle(1, 2) ;; changed(x) ;;
    setdefault('a', x) ;; sort() ;; hex() ;; format_map(x) ;; isdisjoint(x)
""")
GLOBALS = _entries(r"""
    range({0}) ;; range({0}, {1}) ;; dict(a={0}, b={1}) ;; dict({0}) ;; namespace(x={0}) ;;
    cycler({0}, {1}) ;; joiner({0}) ;; raise_exception({0}) ;; strftime_now({0}) ;; lipsum({0}) ;;
    f({0}) ;; caller({0}) ;; loop({0}) ;; f({0}, {1}, x={0}) ;; f(*{0}) ;; f(**{0}) ;; super() ;;
    self.b() ;; dict.update({0}, {1})
""")
GROWTHS = _entries(r"""
    [ns.x, ns.x] ;; (ns.x, ns.x) ;; [ns.x] ;; (ns.x,) ;; {'a': ns.x, 'b': ns.x} ;; ns.x ~ ns.x ;;
    ns.x + ns.x ;; ns.x * 2 ;; ns.x * ns.x ;; namespace(x=ns.x, y=ns.x) ;;
    [namespace(x=ns.x), namespace(y=ns.x)] ;; ns ;; ns.x + [ns.x] ;; ns.x|map('list') ;;
    ns.x|batch(2, ns.x)|list ;; dict(a=ns.x, b=ns.x) ;; ns.x|string ;; ns.x|list ;; ns.x.items() ;;
    ns.x|tojson ;; ns.x|pprint ;; ns.x|e ;; ns.x ** 2 ;; ns.x[:] ;; [ns.x[1:], ns.x] ;; ns.x|select ;;
    ns.x|reverse ;; ns.x|items ;; cycler(ns.x, ns.x) ;; ns.x.split() ;; ns.x|format(ns.x) ;;
    '%s%s' % (ns.x, ns.x) ;; '{}{}'.format(ns.x, ns.x) ;; ns.x|replace('a', 'aa') ;; ns.x|join(ns.x) ;;
    f(ns.x)
""")
ATTACKS = _entries(r"""
    {{ ns.x == y }} ;; {{ ns.x in [y] }} ;; {{ {ns.x: 1} }} ;; {{ [ns.x, y]|sort }} ;;
    {{ [ns.x, y]|unique|list }} ;; {{ ns.x }} ;; {{ ns.x|tojson }} ;; {{ ns.x|string|length }} ;;
    {{ ns.x is eq y }} ;; {{ [ns.x]|select('in', [y])|list }} ;; {{ [y].index(ns.x) }} ;;
    {{ [y].count(ns.x) }} ;; {{ dict([(ns.x, 1)]) }} ;; {{ raise_exception(ns.x) }} ;; {{ ns }} ;;
    {{ ns.x|list }} ;; {{ ns.x < y }} ;; {{ [ns]|sort(attribute='x') }} ;;
    {{ [ns, ns]|groupby('x')|list }} ;; {{ ns.x - y }} ;;
    {% for i in ns.x %}{{ loop.changed(i) }}{% endfor %} ;; {{ ns.x|pprint }} ;; {{ [ns.x, y]|max }} ;;
    {{ ns.x|xmlattr }}
""")
START = _entries(r"""
    [1] ;; (1,) ;; 'aa' ;; 2 ;; {'a': 1} ;; messages ;; 1.5 ;; '%s%s' ;; range(9) ;; ('a', 'b')
""")
