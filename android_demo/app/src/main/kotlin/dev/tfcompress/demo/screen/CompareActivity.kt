package dev.tfcompress.demo.screen

import android.os.Bundle
import android.view.View
import android.widget.Button
import dev.tfcompress.demo.R

/** Two models, or one model on two accelerators, timed by turns on the same inputs. */
class CompareActivity : Screen() {
    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        setContentView(R.layout.compare)
        findViewById<Button>(R.id.back).setOnClickListener { finish() }
        findViewById<Button>(R.id.run).setOnClickListener { desk.compare() }
        findViewById<Button>(R.id.share).setOnClickListener { share(desk.report(desk.state.compared)) }
    }

    override fun show(state: State) {
        models(R.id.first_model, state, 0)
        accelerators(R.id.first_accelerator, state, 0)
        models(R.id.second_model, state, 1)
        accelerators(R.id.second_accelerator, state, 1)
        findViewById<View>(R.id.run).isEnabled = state.bundle != null && state.busy == null
        findViewById<View>(R.id.result).visibility = if (state.compared.isEmpty()) View.GONE else View.VISIBLE
        if (state.compared.isNotEmpty()) {
            table(listOf("" to state.compared.map { it.choice.model.name }) + texts.figures(state.compared))
        }
    }
}
